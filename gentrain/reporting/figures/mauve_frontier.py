"""The curve of MAUVE and the dial hold the same information: (KL[P||M_pi], KL[Q||M_pi]) along pi."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import divergences
from gentrain.reporting import plots

PRIORS = np.linspace(0.005, 0.995, 199)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Three models of one distribution, which drop modes, cover too much or do both, with their frontier integrals."""
    del results
    random = np.random.default_rng(3)
    p = random.dirichlet(np.full(40, 0.5))
    order = np.argsort(p)
    narrow = p.copy()
    narrow[order[:30]] *= 0.05
    models = {
        "drops modes": narrow / narrow.sum(),
        "covers too much": 0.5 * p + 0.5 / 40,
        "both": 0.5 * (narrow / narrow.sum() + 1 / 40),
    }
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), dpi=130)
    numbers: dict[str, Any] = {}
    for name, q in models.items():
        mixture = PRIORS[:, None] * p[None, :] + (1 - PRIORS[:, None]) * q[None, :]
        from_data = divergences.kl(p[None, :], mixture)
        from_model = divergences.kl(q[None, :], mixture)
        integral = float(divergences.frontier_integral(p, q))
        panels[0].plot(np.exp(-5 * from_model), np.exp(-5 * from_data), label=f"{name}, FI = {integral:.3f}")
        dial = [float(divergences.js(p, q, prior)) for prior in PRIORS]
        panels[1].plot(PRIORS, dial, label=f"{name}, twice its integral {2 * np.trapezoid(dial, PRIORS):.3f}")
        numbers[name] = {"frontier_integral": integral, "js": dial}
    panels[0].set(xlabel="exp(-5 KL[Q||M])", ylabel="exp(-5 KL[P||M])", title="MAUVE curve")
    panels[1].set(xlabel="$\\pi$", ylabel="JS, nats", title="the same along the dial")
    for panel in panels:
        panel.legend(frameon=False, fontsize=7)
    plots.save(figure, path)
    return {"real_prior": PRIORS.tolist(), **numbers}
