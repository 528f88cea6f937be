"""One Gaussian between covering two modes and choosing one: the two branches along the dial, and where runs landed."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import worlds

PRIORS = np.linspace(0.02, 1.0, 50)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Lines: every local minimum of normalised JS in theory, the global one thick. Points: the runs of the sweep."""
    world = worlds.points.bimodal()
    optima = [
        (prior, rank, best)
        for prior in PRIORS
        for rank, best in enumerate(worlds.js_minimiser(world, "isotropic", prior))
    ]
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), dpi=130)
    for prior, rank, optimum in optima:
        dot = {"color": "0.2" if rank == 0 else "0.7", "ms": 4 if rank == 0 else 2.5}
        panels[0].plot(prior, optimum.value, ".", **dot)
        panels[1].plot(prior, np.sqrt(optimum.parameters[-1]), ".", **dot)
    runs = []
    for found in results.values():
        config, final = found["config"], found["final"]
        if config["data.name"] == "world:bimodal":
            prior = config["objective.real_prior"]
            runs.append({"real_prior": prior, "start": config["model.gaussian.scale"], "sd": final["exact/sd"]})
            runs[-1]["njs"] = final["generator/divergence"]
            mark = {"color": "C3" if config["model.gaussian.scale"] > 1 else "C0", "mfc": "none"}
            panels[0].plot(prior, runs[-1]["njs"], "o", **mark)
            panels[1].plot(prior, runs[-1]["sd"], "o", **mark)
    panels[0].set(xlabel="$\\pi$, weight on the data", ylabel="JS / ($\\pi$ (1 - $\\pi$)), nats", title="local minima")
    panels[1].set(xlabel="$\\pi$, weight on the data", ylabel="standard deviation", title="circles: runs, by start")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    jump = [prior for prior, rank, best in optima if rank == 0 and best.parameters[-1] < 1]
    return {"narrow_from": float(min(jump)), "runs": runs}
