"""Pictures as files: grids of samples, and what figures share."""

import math
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from gentrain import files


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
