"""JS_pi and its normalised form between the two Kullback-Leibler divergences."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import divergences
from gentrain.reporting import plots

PRIORS = np.concatenate(
    [[0.0], np.logspace(-6, -1.5, 40), np.linspace(0.04, 0.96, 47), 1 - np.logspace(-1.5, -6, 40), [1.0]]
)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """For two random distributions on six states: JS vanishes at both ends, JS / (pi (1 - pi)) ends at the two KLs."""
    del results
    p, q = np.random.default_rng(0).dirichlet(np.ones(6), 2)
    forward, reverse = float(divergences.kl(p, q)), float(divergences.kl(q, p))
    raw = [float(divergences.js(p, q, prior)) for prior in PRIORS]
    normalised = [float(divergences.normalised_js(p, q, prior)) for prior in PRIORS]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), dpi=130)
    panels[0].plot(PRIORS, normalised, label="JS / ($\\pi$ (1 - $\\pi$))")
    panels[0].plot(PRIORS, raw, label="JS")
    panels[0].set(xlabel="$\\pi$, weight on the data", ylabel="nats")
    logit = np.log(PRIORS[1:-1]) - np.log1p(-PRIORS[1:-1])
    panels[1].plot(logit, normalised[1:-1], label="JS / ($\\pi$ (1 - $\\pi$))")
    panels[1].set(xlabel="logit $\\pi$: how slowly the ends are reached")
    for panel in panels:
        panel.axhline(forward, color="C2", ls=":", label="KL[P||Q]")
        panel.axhline(reverse, color="C3", ls=":", label="KL[Q||P]")
        panel.legend(frameon=False, fontsize=8)
    plots.save(figure, path)
    return {"real_prior": PRIORS.tolist(), "js": raw, "normalised_js": normalised, "kl": forward, "reverse_kl": reverse}
