"""Where scheduled sampling converges: how far its fixed point is from the data, for either coin (Huszár, 2015)."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import divergences, worlds
from gentrain.options.identity import section
from gentrain.worlds.table import build_table

KEEP_TRUE = np.linspace(0, 1, 21)
STYLES = {"token": ("-", "o"), "sequence": ("--", "s")}
MEASURES = {
    "forward_kl": ("KL[P||Q]", lambda p, q: divergences.kl(p.ravel(), q.ravel())),
    "reverse_kl": ("KL[Q||P]", lambda p, q: divergences.kl(q.ravel(), p.ravel())),
    "total_correlation": ("total correlation of Q", lambda p, q: divergences.total_correlation(q)),
}
MARKS = {"true": "trained", "expert": "trained, labels of an expert"}


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """KL[P||Q], KL[Q||P] and the total correlation of Q against keep_true: lines are fixed points, marks what a sweep's
    variants reached; crosses are runs whose labels came from an expert."""
    runs = {name: found for name, found in results.items() if _sampled(found["config"])}
    p = np.random.default_rng(1).dirichlet(np.full(81, 0.3)).reshape((3,) * 4)
    if runs:
        p = build_table(section(next(iter(runs.values()))["config"], "data.world")).probabilities()
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), dpi=130)
    numbers: dict[str, Any] = {"keep_true": KEEP_TRUE.tolist()}
    for color, (coin, (style, mark)) in zip(("C0", "C1"), STYLES.items(), strict=True):
        fixed = [worlds.scheduled_sampling_fixed_point(p, keep, coin=coin) for keep in KEEP_TRUE]
        for panel, (key, (name, measure)) in zip(panels, MEASURES.items(), strict=True):
            numbers[f"{name}, coin per {coin}"] = [float(measure(p, q)) for q in fixed]
            panel.plot(KEEP_TRUE, numbers[f"{name}, coin per {coin}"], style, color=color, label=f"coin per {coin}")
            for label, marker in (("true", mark), ("expert", "x")):
                points = [
                    (found["config"]["scheduled_sampling.keep_true"], found["final"][f"exact/{key}"])
                    for found in runs.values()
                    if (found["config"]["scheduled_sampling.coin"], found["config"]["scheduled_sampling.label"])
                    == (coin, label)
                ]
                if points:
                    numbers[f"{name}, coin per {coin}, label {label}, trained"] = points
                    own = {"color": color, "ls": "", "ms": 5, "mfc": "none", "label": MARKS[label]}
                    panel.plot(*zip(*points, strict=True), marker, **own)
    panels[2].axhline(float(divergences.total_correlation(p)), color="0.6", lw=0.8, label="of P")
    for panel, (name, _) in zip(panels, MEASURES.values(), strict=True):
        panel.set(title=name, xlabel="keep_true", ylabel="nats")
        panel.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return numbers


def _sampled(config: dict[str, Any]) -> bool:
    return config["objective.name"] == "scheduled_sampling" and config["data.name"] == "world:table"
