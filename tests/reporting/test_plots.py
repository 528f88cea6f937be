"""Grids of images show what they are given."""

import numpy as np
from PIL import Image

from gentrain.reporting import plots


def test_a_grid_shows_every_image_where_it_belongs(tmp_path):
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((5, 4, 4, 3), 20, np.uint8)
    plots.image_grid(images, tmp_path / "grid.png", side=8)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 * 10 + 2, 3 * 10 + 2, 3)
    centres = [sheet[10 * (i // 3) + 6, 10 * (i % 3) + 6, 0] for i in range(5)]
    assert centres == [0, 20, 40, 60, 80]
    gaps = (sheet[[0, 1, 10, 11, 20, 21]] == 128).all() and (sheet[:, [0, 1, 10, 11, 20, 21, 30, 31]] == 128).all()
    assert gaps and (sheet[2:10, 2:10] == 0).all()
