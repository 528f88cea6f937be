"""What a learned critic makes of the dial, against the closed form: the variance of an isotropic Gaussian by pi."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import worlds
from gentrain.reporting import plots

PRIORS = np.linspace(0, 1, 9)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """The line: s*(pi), which minimises JS_pi between N(0, covariance) and N(0, s I), for the sweep's covariance (or
    correlation .9); points: the squares of exact/sd of its runs on world:gaussian."""
    runs = [result for result in results.values() if result["config"]["data.name"] == "world:gaussian"]
    covariance = np.asarray(runs[0]["config"]["data.world.covariance"] if runs else [[1.0, 0.9], [0.9, 1.0]])
    world = worlds.GaussianMixture(np.ones(1), np.zeros((1, len(covariance))), covariance[None])

    def exact_variance(prior: float) -> float:
        return float(worlds.js_minima(world, "isotropic", prior)[0].parameters[-1])

    figure, axes = plt.subplots(figsize=(6, 4), dpi=130)
    numbers: dict[str, Any] = {"real_prior": PRIORS.tolist(), "variance": [exact_variance(prior) for prior in PRIORS]}
    axes.plot(PRIORS, numbers["variance"], color="0.5", label="the minimiser of JS$_\\pi$")
    for number, run in enumerate(runs):
        prior = run["config"]["objective.real_prior"]
        variance = run["final"]["exact/sd"] ** 2
        axes.plot(prior, variance, "o", color="C3", label=None if number else "learned")
        numbers[f"{prior:g}"] = {"learned": variance, "exact": exact_variance(prior)}
    axes.set(xlabel="$\\pi$, weight on the data", ylabel="variance")
    axes.legend(frameon=False)
    plots.save(figure, path)
    return numbers
