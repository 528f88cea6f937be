"""One isotropic Gaussian fitted to data along the dial: contours over the data, a panel for each pi (Huszár, 2015)."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import worlds
from gentrain.options.identity import section
from gentrain.reporting import plots


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """A row of panels for each world of the sweep; returns mean, sd and normalised JS of each fit."""
    by_world: dict[str, list[dict[str, Any]]] = {}
    for run in results.values():
        by_world.setdefault(run["config"]["data.name"], []).append(run)
    rows = {name: best(by_world[name]) for name in sorted(by_world)}
    columns = max(len(row) for row in rows.values())
    figure, panels = plt.subplots(len(rows), columns, figsize=(2.4 * columns, 2.5 * len(rows)), squeeze=False, dpi=130)
    numbers: dict[str, Any] = {}
    for panel_row, (name, row) in zip(panels, rows.items(), strict=True):
        world = worlds.build(name.removeprefix("world:"), section(row[0]["config"], "data.world"))
        assert isinstance(world, worlds.GaussianMixture)
        data = world.sample(np.random.default_rng(0), 400)
        draw_fit = contours if world.dimension == 2 else densities
        for panel, run in zip(panel_row, row, strict=False):
            prior, final = run["config"]["objective.real_prior"], run["final"]
            mean = np.asarray([final[f"exact/mean_{axis}"] for axis in range(world.dimension)])
            panel.set_title(f"$\\pi$ = {prior:g}, sd {final['exact/sd']:.3f}", fontsize=9)
            fit = {"mean": mean.tolist(), "sd": final["exact/sd"], "normalised_js": final["generator/divergence"]}
            numbers[f"{name}@{prior:g}"] = fit
            draw_fit(panel, world, data, mean, final["exact/sd"])
            panel.tick_params(labelsize=7)
        panel_row[0].set_ylabel(name.removeprefix("world:"))
    for panel in panels.flat:
        panel.set_visible(panel.has_data())
    plots.save(figure, path)
    return numbers


def best(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each pi, in order, the run that reached the lowest divergence, from wherever it started."""
    by_prior: dict[float, dict[str, Any]] = {}
    for run in sorted(runs, key=lambda run: run["final"]["generator/divergence"]):
        by_prior.setdefault(run["config"]["objective.real_prior"], run)
    return [by_prior[prior] for prior in sorted(by_prior)]


def contours(panel, world, data, mean, sd) -> None:
    """Two dimensions: the data as dots, P in grey, Q at one, two and three standard deviations."""
    low, high = data.min(0) - 0.5, data.max(0) + 0.5
    x, y = np.meshgrid(np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 120))
    density = np.exp(world.log_prob(np.stack([x.ravel(), y.ravel()], 1))).reshape(x.shape)
    panel.plot(*data.T, ".", ms=2, color="0.6")
    panel.contour(x, y, density, levels=density.max() * np.exp([-4.5, -2.0, -0.5]), colors="0.35", linewidths=0.7)
    turn = np.linspace(0, 2 * np.pi, 100)
    for radius in (1, 2, 3):
        circle = mean[:, None] + radius * sd * np.stack([np.cos(turn), np.sin(turn)])
        panel.plot(*circle, color="C3", lw=1.2 if radius == 1 else 0.7)
    panel.set(aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def densities(panel, world, data, mean, sd) -> None:
    """One dimension: both densities."""
    x = np.linspace(data.min() - 1, data.max() + 1, 400)
    panel.fill_between(x, np.exp(world.log_prob(x[:, None])), color="0.8")
    panel.plot(x, np.exp(-0.5 * np.square((x - mean[0]) / sd)) / (sd * np.sqrt(2 * np.pi)), color="C3")
