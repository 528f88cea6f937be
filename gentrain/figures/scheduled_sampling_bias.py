"""Where scheduled sampling converges: how far its fixed point is from the data, for either coin (Huszár, 2015)."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import divergences, worlds

KEEP_TRUE = np.linspace(0, 1, 21)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """KL[P||Q*], KL[Q*||P] and the total correlation of Q* against keep_true, in a random world of 3^4 strings."""
    del results
    p = np.random.default_rng(1).dirichlet(np.full(81, 0.3)).reshape((3,) * 4)
    measures = {
        "KL[P||Q*]": lambda q: divergences.kl(p.ravel(), q.ravel()),
        "KL[Q*||P]": lambda q: divergences.kl(q.ravel(), p.ravel()),
        "total correlation of Q*": divergences.total_correlation,
    }
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), dpi=130)
    numbers: dict[str, Any] = {"keep_true": KEEP_TRUE.tolist()}
    for coin, style in (("token", "-"), ("sequence", "--")):
        fixed = [worlds.scheduled_sampling_fixed_point(p, keep, coin=coin) for keep in KEEP_TRUE]
        for panel, (name, measure) in zip(panels, measures.items(), strict=True):
            values = [float(measure(q)) for q in fixed]
            numbers[f"{name}, coin per {coin}"] = values
            panel.plot(KEEP_TRUE, values, style, label=f"coin per {coin}")
            panel.set(title=name, xlabel="keep_true", ylabel="nats")
    panels[2].axhline(float(divergences.total_correlation(p)), color="0.6", lw=0.8, label="of P")
    for panel in panels:
        panel.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return numbers
