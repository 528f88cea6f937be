"""The non-saturating generator turns the dial round: what each loss makes of one Gaussian at the optimal critic."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from scipy.optimize import minimize_scalar

from gentrain import divergences, worlds
from gentrain.worlds.support import support

PRIORS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Best variance of an isotropic Gaussian for correlated data (correlation 0.9), against pi, under

    normalised JS (the saturating loss) and KL[M_pi||P] / (1 - pi) (the non-saturating one), whose pi -> 0 end is
    KL[Q||P].
    """
    del results
    world = worlds.GaussianMixture(np.ones(1), np.zeros((1, 2)), np.asarray([[[1.0, 0.9], [0.9, 1.0]]]))
    everywhere = support(world)
    assert everywhere is not None
    points, log_p, log_volume = everywhere
    squares = np.square(points).sum(-1)

    def model(variance: float) -> np.ndarray:
        return log_volume - squares / (2 * variance) - np.log(2 * np.pi * variance)

    def best(loss) -> float:
        value = lambda log_variance: loss(model(np.exp(log_variance)))
        return float(np.exp(minimize_scalar(value, bounds=(np.log(0.02), np.log(2)), method="bounded").x))

    def non_saturating(log_q: np.ndarray, prior: float):
        log_mixture = np.logaddexp(np.log(prior) + log_p, np.log1p(-prior) + log_q)
        return divergences.kl_from_log(log_mixture, log_p) / (1 - prior)

    losses = {
        "saturating: normalised JS": lambda q, prior: divergences.normalised_js_from_logits(log_p, q, prior),
        "non-saturating: KL[M||P] / (1 - pi)": non_saturating,
    }
    figure, panel = plt.subplots(figsize=(5.5, 3.8), dpi=130)
    numbers: dict[str, Any] = {"real_prior": PRIORS}
    for name, loss in losses.items():
        numbers[name] = [best(lambda q, loss=loss, prior=prior: loss(q, prior)) for prior in PRIORS]
        panel.plot(PRIORS, numbers[name], "o-", ms=3, label=name)
    panel.axhline(1.0, color="C2", ls=":", label="KL[P||Q]")
    panel.axhline(0.19, color="C3", ls=":", label="KL[Q||P]")
    panel.set(xlabel="$\\pi$, weight on the data", ylabel="variance of the best fit", ylim=(0, None))
    panel.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return numbers
