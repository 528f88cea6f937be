"""The non-saturating generator turns the dial round: what each loss makes of one Gaussian at the optimal critic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from scipy.optimize import minimize_scalar

from gentrain import divergences, worlds
from gentrain.reporting import plots
from gentrain.worlds.support import support

PRIORS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Best variance of an isotropic Gaussian for correlated data (correlation 0.9), against pi, under two losses:
    normalised JS (saturating) and KL[M_pi||P] / (1 - pi) (non-saturating), whose pi -> 0 end is KL[Q||P]."""
    del results
    world = worlds.GaussianMixture(np.ones(1), np.zeros((1, 2)), np.asarray([[[1.0, 0.9], [0.9, 1.0]]]))
    grid = support(world)
    assert grid is not None
    points, log_p, log_volume = grid
    squares = np.square(points).sum(-1)

    def saturating(log_q: np.ndarray, prior: float) -> float:
        return divergences.normalised_js_from_logits(log_p, log_q, prior)

    def non_saturating(log_q: np.ndarray, prior: float) -> float:
        log_mixture = np.logaddexp(np.log(prior) + log_p, np.log1p(-prior) + log_q)
        return divergences.kl_from_log(log_mixture, log_p) / (1 - prior)

    def best_variance(loss: Callable[[np.ndarray, float], float], prior: float) -> float:
        def loss_of_model(log_variance: float) -> float:
            variance = np.exp(log_variance)
            log_q = log_volume - squares / (2 * variance) - np.log(2 * np.pi * variance)
            return loss(log_q, prior)

        bounds = (np.log(0.02), np.log(2))
        return float(np.exp(minimize_scalar(loss_of_model, bounds=bounds, method="bounded").x))

    losses = {
        "saturating: normalised JS": saturating,
        "non-saturating: KL[M||P] / (1 - pi)": non_saturating,
    }
    figure, panel = plt.subplots(figsize=(5.5, 3.8), dpi=130)
    numbers: dict[str, Any] = {"real_prior": PRIORS}
    for name, loss in losses.items():
        numbers[name] = [best_variance(loss, prior) for prior in PRIORS]
        panel.plot(PRIORS, numbers[name], "o-", ms=3, label=name)
    panel.axhline(1.0, color="C2", ls=":", label="KL[P||Q]")
    panel.axhline(0.19, color="C3", ls=":", label="KL[Q||P]")
    panel.set(xlabel="$\\pi$, weight on the data", ylabel="variance of the best fit", ylim=(0, None))
    panel.legend(frameon=False, fontsize=8)
    plots.save(figure, path)
    return numbers
