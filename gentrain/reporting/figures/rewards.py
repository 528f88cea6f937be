"""The reward a discrete generator gets at the optimal critic: one family, of which three papers are points."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain.reporting import plots

PRIORS = (0.001, 0.1, 0.5, 0.9, 0.999)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """softplus(l) / pi with l = logit pi + log P/Q, which descends normalised JS, against log P/Q.

    At pi -> 0 it is P/Q, MaliGAN's importance weight (Che et al., 2017); at pi -> 1 it grows like log P/Q.
    """
    del results
    ratio = np.linspace(-6, 4, 201)
    figure, panel = plt.subplots(figsize=(5.5, 3.8), dpi=130)
    numbers: dict[str, Any] = {"log_ratio": ratio.tolist()}
    for number, prior in enumerate(PRIORS):
        reward = np.logaddexp(0, np.log(prior / (1 - prior)) + ratio) / prior
        reward -= reward[np.argmin(np.abs(ratio))]  # a constant changes no gradient
        numbers[f"{prior:g}"] = reward.tolist()
        panel.plot(ratio, reward, color=plt.cm.viridis(number / len(PRIORS)), label=f"$\\pi$ = {prior:g}")
    panel.plot(ratio, np.expm1(ratio), "k:", lw=1, label="P/Q - 1")
    panel.plot(ratio, ratio, "k--", lw=1, label="log P/Q")
    panel.set(xlabel="log P/Q of a sample, nats", ylabel="reward less that at P = Q", ylim=(-7, 12))
    panel.legend(frameon=False, fontsize=8)
    plots.save(figure, path)
    return numbers
