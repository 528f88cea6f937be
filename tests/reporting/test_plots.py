"""Curves and grids of images show what they are given."""

import numpy as np
import pytest
from PIL import Image

from gentrain.reporting import plots


@pytest.fixture
def open_figure(monkeypatch):
    """The figure of the last plot, which would be closed otherwise."""
    with monkeypatch.context() as patch:
        patch.setattr(plots.plt, "close", lambda figure: None)
        yield plots.plt.gcf
    plots.plt.close("all")


def test_a_running_mean_trails_its_curve(tmp_path, open_figure):
    plots.curves({"line": (list(range(200)), list(range(200)))}, tmp_path / "curve.png", title="", unit="")
    faint, mean = open_figure().axes[0].lines
    assert len(faint.get_xdata()) == 200
    np.testing.assert_allclose(mean.get_xdata() - mean.get_ydata(), 1.5)  # of the last four


def test_variants_that_differ_in_their_seed_only_are_one_colour_and_one_entry_of_the_legend(tmp_path, open_figure):
    names = ("width=8,seed=0", "width=8,seed=1", "width=16,seed=0")
    lines = {name: ([0, 1], [0.0, 1.0]) for name in names}
    plots.curves(lines, tmp_path / "curve.png", title="t", unit="nats", levels={"bound": 0.5})
    axes = open_figure().axes[0]
    colors = [line.get_color() for line in axes.lines[:3]]
    assert colors[0] == colors[1] != colors[2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["width=8", "width=16", "bound 0.5"]
    assert axes.lines[3].get_ydata()[0] == 0.5 and axes.get_ylabel() == "nats" and axes.get_title() == "t"


def test_a_grid_shows_every_image_where_it_belongs(tmp_path):
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((5, 4, 4, 3), 20, np.uint8)
    plots.image_grid(images, tmp_path / "grid.png", side=8)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 * 10 + 2, 3 * 10 + 2, 3)
    centres = [sheet[10 * (i // 3) + 6, 10 * (i % 3) + 6, 0] for i in range(5)]
    assert centres == [0, 20, 40, 60, 80]
    gaps = (sheet[[0, 1, 10, 11, 20, 21]] == 128).all() and (sheet[:, [0, 1, 10, 11, 20, 21, 30, 31]] == 128).all()
    assert gaps and (sheet[2:10, 2:10] == 0).all()
