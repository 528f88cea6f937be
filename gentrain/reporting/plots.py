"""Every picture that a run or a report draws."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from gentrain import files

Curve = tuple[Sequence[float], Sequence[float]]  # steps, values


def curves(
    lines: Mapping[str, Curve], path: Path, *, title: str, unit: str, levels: Mapping[str, float] | None = None
) -> None:
    """Curves over steps, with horizontal lines to compare against; one PNG.

    A long noisy curve is drawn faintly with its running mean over 2 % of its length on top. Lines whose names differ in
    their seed only are one colour and one entry of the legend.
    """
    groups = {name: re.sub(r"(^|,)seed=\d+", "", name) or name for name in lines}
    colors = {group: f"C{number % 10}" for number, group in enumerate(dict.fromkeys(groups.values()))}
    legend_outside = sum(len(group) for group in colors) > 120  # characters: more than fit over the curves
    figure, axes = plt.subplots(figsize=(10, 4) if legend_outside else (7, 4), dpi=110)
    labelled: set[str] = set()
    for name, (steps, values) in lines.items():
        group = groups[name]
        window = max(len(values) // 50, 1)
        style: dict[str, Any] = {"color": colors[group], "marker": "o" if len(values) < 25 else None, "ms": 3}
        if window > 1:
            axes.plot(steps, values, alpha=0.35, **style)
            steps = steps[window - 1 :]
            values = np.convolve(values, np.ones(window) / window, mode="valid").tolist()
        axes.plot(steps, values, label=None if group in labelled else group, **style)
        labelled.add(group)
    for (name, level), dashes in zip((levels or {}).items(), itertools.cycle(("--", ":", "-.")), strict=False):
        axes.axhline(level, ls=dashes, color="0.3", lw=1, label=f"{name} {level:.3g}")
    axes.set(title=title, xlabel="step", ylabel=unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    legend: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if legend_outside else {}
    axes.legend(frameon=False, fontsize=8, **legend)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure whose parts do not overlap, and closes it."""
    figure.tight_layout()
    with files.replacing(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)


def image_grid(images: np.ndarray, path: Path, side: int = 64) -> None:
    """(n, height, width, channels) uint8 as one PNG grid, each image enlarged to about `side` pixels."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    zoom = max(side // height, 1)
    gap = 2
    cell_height, cell_width = height * zoom + gap, width * zoom + gap
    sheet = np.full((rows * cell_height + gap, columns * cell_width + gap, channels), 128, np.uint8)
    for number, image in enumerate(np.kron(images, np.ones((1, zoom, zoom, 1), np.uint8))):
        row, column = divmod(number, columns)
        top, left = row * cell_height + gap, column * cell_width + gap
        sheet[top : top + height * zoom, left : left + width * zoom] = image
    with files.replacing(path) as temporary:
        Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet).save(temporary)
