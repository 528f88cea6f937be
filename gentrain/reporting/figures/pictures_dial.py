"""Pictures along the dial: what a mixture's components stand for and what it draws, from KL[P||Q] to KL[Q||P]."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from gentrain.errors import ReportError
from gentrain.reporting import plots, runs

NUMBERS = {
    "teacher/forward_kl": "KL[P||Q]",
    "teacher/reverse_kl": "KL[Q||P]",
    "fidelity/precision": "precision",
    "fidelity/recall": "recall",
}


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """A column for each class prior, of its first seed: mean pictures of the components, the heaviest first, samples,
    and the means of NUMBERS over the seeds with their standard deviations.

    Where all started from runs of another prior, those are the first column. Raises ReportError without pictures.
    """
    folders: dict[float, list[Path]] = {}
    for result in results.values():
        folders.setdefault(result["config"]["objective.real_prior"], []).append(result["folder"])
        triples = result["config"]["init_from"]
        for player, other, _ in [] if isinstance(triples, str) else triples:
            if player == "generator" and (Path(other) / "config.json").exists():
                prior = runs.read(other, Path(other)).config["objective.real_prior"]
                folders.setdefault(prior, []).append(Path(other))
    columns = {prior: list(dict.fromkeys(folders[prior])) for prior in sorted(folders)}
    figure, panels = plt.subplots(2, len(columns), figsize=(2.3 * len(columns), 5.2), dpi=130, squeeze=False)
    numbers = {}
    for (prior, own), (above, below) in zip(columns.items(), panels.T, strict=True):
        finals = [runs.read(folder.name, folder).summary["final"] for folder in own]
        measured = {label: [final[key] for final in finals] for key, label in NUMBERS.items()}
        numbers[f"{prior:g}"] = {label: [float(np.mean(v)), float(np.std(v, ddof=1)) if len(v) > 1 else 0.0]
                                 for label, v in measured.items()}  # fmt: skip
        above.imshow(newest(own[0] / "samples" / "components"), cmap="gray")
        below.imshow(newest(own[0] / "samples"), cmap="gray")
        above.set_title(f"$\\pi$ = {prior:g}", fontsize=11)
        said = (f"{label}  {mean:.2f} ± {spread:.2f}" for label, (mean, spread) in numbers[f"{prior:g}"].items())
        below.set_xlabel("\n".join(said), fontsize=8)
    for row, what in zip(panels, ("components", "samples"), strict=True):
        row[0].set_ylabel(what)
        for panel in row:
            panel.set(xticks=[], yticks=[])
    plots.save(figure, path)
    return numbers


def newest(folder: Path) -> np.ndarray:
    """The newest picture of a folder."""
    pictures = runs.sample_files(folder)
    if not pictures:
        raise ReportError(f"there are no pictures in {folder}")
    return np.asarray(Image.open(pictures[-1]).convert("L"))
