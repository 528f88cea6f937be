"""One Gaussian between covering two modes and choosing one: the two branches along the dial, and where runs landed."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import worlds
from gentrain.reporting import plots

PRIORS = np.linspace(0.02, 1.0, 50)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Lines: every local minimum of normalised JS in theory, the global one thick. Points: the runs of the sweep."""
    world = worlds.points.bimodal()
    minima = [
        (prior, rank, minimum)  # rank 0 is the global one
        for prior in PRIORS
        for rank, minimum in enumerate(worlds.js_minima(world, "isotropic", prior))
    ]
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), dpi=130)
    for prior, rank, minimum in minima:
        style = {"color": "0.2" if rank == 0 else "0.7", "ms": 4 if rank == 0 else 2.5}
        panels[0].plot(prior, minimum.value, ".", **style)
        panels[1].plot(prior, np.sqrt(minimum.parameters[-1]), ".", **style)
    runs = []
    for result in results.values():
        config, final = result["config"], result["final"]
        if config["data.name"] != "world:bimodal":
            continue
        run = {
            "real_prior": config["objective.real_prior"],
            "start": config["model.gaussian.scale"],
            "sd": final["exact/sd"],
            "njs": final["generator/divergence"],
        }
        style = {"color": "C3" if run["start"] > 1 else "C0", "mfc": "none"}
        panels[0].plot(run["real_prior"], run["njs"], "o", **style)
        panels[1].plot(run["real_prior"], run["sd"], "o", **style)
        runs.append(run)
    panels[0].set(xlabel="$\\pi$, weight on the data", ylabel="JS / ($\\pi$ (1 - $\\pi$)), nats", title="local minima")
    panels[1].set(xlabel="$\\pi$, weight on the data", ylabel="standard deviation", title="circles: runs, by start")
    plots.save(figure, path)
    narrow = [prior for prior, rank, minimum in minima if rank == 0 and minimum.parameters[-1] < 1]
    return {"narrow_from": float(min(narrow)), "runs": runs}
