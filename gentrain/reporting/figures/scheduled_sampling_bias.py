"""Where scheduled sampling converges: how far its fixed point is from the data, for either coin (Huszár, 2015)."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import divergences, worlds
from gentrain.options.identity import section
from gentrain.reporting import plots
from gentrain.worlds.table import build_table

KEEP_TRUE = np.linspace(0, 1, 21)
STYLES = {"token": ("C0", "-", "o"), "sequence": ("C1", "--", "s")}  # coin -> colour, line, mark of a trained run
MEASURES = {  # as evaluator 'exact' names it -> in words, and of the tables P and Q
    "forward_kl": ("KL[P||Q]", lambda p, q: divergences.kl(p.ravel(), q.ravel())),
    "reverse_kl": ("KL[Q||P]", lambda p, q: divergences.kl(q.ravel(), p.ravel())),
    "total_correlation": ("total correlation of Q", lambda p, q: divergences.total_correlation(q)),
}


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """KL[P||Q], KL[Q||P] and the total correlation of Q against keep_true: lines are fixed points, marks are what a
    sweep's variants reached, and crosses are runs whose labels came from an expert."""
    runs = [result for result in results.values() if _is_sampled_table(result["config"])]
    if runs:
        p = build_table(section(runs[0]["config"], "data.world")).probabilities()
    else:
        p = np.random.default_rng(1).dirichlet(np.full(81, 0.3)).reshape((3,) * 4)
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), dpi=130)
    numbers: dict[str, Any] = {"keep_true": KEEP_TRUE.tolist()}
    for coin, (color, line, mark) in STYLES.items():
        fixed_points = [worlds.scheduled_sampling_fixed_point(p, keep, coin=coin) for keep in KEEP_TRUE]
        kinds = {"true": (mark, "trained"), "expert": ("x", "trained, labels of an expert")}
        for panel, (key, (name, measure)) in zip(panels, MEASURES.items(), strict=True):
            values = [float(measure(p, q)) for q in fixed_points]
            numbers[f"{name}, coin per {coin}"] = values
            panel.plot(KEEP_TRUE, values, line, color=color, label=f"coin per {coin}")
            for label, (marker, legend) in kinds.items():
                points = _points(runs, coin, label, f"exact/{key}")
                if points:
                    numbers[f"{name}, coin per {coin}, label {label}, trained"] = points
                    style = {"color": color, "ls": "", "ms": 5, "mfc": "none", "label": legend}
                    panel.plot([keep for keep, _ in points], [value for _, value in points], marker, **style)
    panels[2].axhline(float(divergences.total_correlation(p)), color="0.6", lw=0.8, label="of P")
    for panel, (name, _) in zip(panels, MEASURES.values(), strict=True):
        panel.set(title=name, xlabel="keep_true", ylabel="nats")
        panel.legend(frameon=False, fontsize=7)
    plots.save(figure, path)
    return numbers


def _is_sampled_table(config: dict[str, Any]) -> bool:
    return config["objective.name"] == "scheduled_sampling" and config["data.name"] == "world:table"


def _points(runs: list[dict[str, Any]], coin: str, label: str, metric: str) -> list[tuple[float, float]]:
    """(keep_true, what was reached) of the runs with this coin and label."""
    points = []
    for run in runs:
        options = section(run["config"], "scheduled_sampling")
        if (options.coin, options.label) == (coin, label):
            points.append((options.keep_true, run["final"][metric]))
    return points
