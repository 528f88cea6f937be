"""Every picture that a run or a report draws."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

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
    aside = sum(map(len, colors)) > 120  # more than fits beside the curves
    figure, axes = plt.subplots(figsize=(10, 4) if aside else (7, 4), dpi=110)
    labelled: set[str] = set()
    for name, (steps, values) in lines.items():
        window, group = max(len(values) // 50, 1), groups[name]
        style: dict[str, Any] = {"color": colors[group], "marker": "o" if len(values) < 25 else None, "ms": 3}
        if window > 1:
            axes.plot(steps, values, alpha=0.35, **style)
            steps, values = steps[window - 1 :], np.convolve(values, np.ones(window) / window, mode="valid").tolist()
        axes.plot(steps, values, label=None if group in labelled else group, **style)
        labelled.add(group)
    for (name, level), dashes in zip((levels or {}).items(), ("--", ":", "-.") * 9, strict=False):
        axes.axhline(level, ls=dashes, color="0.3", lw=1, label=f"{name} {level:.3g}")
    axes.set(title=title, xlabel="step", ylabel=unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if aside else {}
    axes.legend(frameon=False, fontsize=8, **beside)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def image_grid(images: np.ndarray, path: Path, side: int = 64) -> None:
    """(n, height, width, channels) uint8 as one PNG grid, each image enlarged to about `side` pixels."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    zoom = max(side // height, 1)
    gap = 2
    cell_h, cell_w = height * zoom + gap, width * zoom + gap
    sheet = np.full((math.ceil(count / columns) * cell_h + gap, columns * cell_w + gap, channels), 128, np.uint8)
    for i, image in enumerate(np.kron(images, np.ones((1, zoom, zoom, 1), np.uint8))):
        top, left = i // columns * cell_h + gap, i % columns * cell_w + gap
        sheet[top : top + height * zoom, left : left + width * zoom] = image
    Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet).save(path)
