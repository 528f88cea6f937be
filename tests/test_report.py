"""The page a run ends in says what was reached and beside what."""

import json

import numpy as np
import pytest
from PIL import Image

from gentrain import plots, report


def records(tmp_path, *lines):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"time": 0, **line}) + "\n" for line in lines))
    (tmp_path / "config.json").write_text('{"steps": 2}')


def test_the_report_compares_escapes_and_carries_its_pictures(tmp_path):
    tmp_path = tmp_path / "a<script>b"
    measured = {"valid/nll": 2.1, "valid/nats_per_char": 2.1, "baseline/best_ngram": 2.25}
    records(
        tmp_path, {"step": 1, "generator/nll": 3.0, "valid/nll": 2.0}, {"step": 2, "generator/nll": 2.0, **measured}
    )
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "0000002.txt").write_text("<script>alert(1)</script>\n")
    page = report.write(tmp_path).read_text()
    assert "2.100 nats/char on valid, better than best n-gram (2.250)" in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,") == len(list((tmp_path / "plots").iterdir())) == 1
    summary = json.loads((tmp_path / "report.json").read_text())
    assert summary["best"]["valid/nll"] == {"value": 2.0, "step": 1} and summary["final"]["valid/nll"] == 2.1


def test_the_last_number_counts_and_only_held_out_ones_are_best(tmp_path):
    records(tmp_path, {"step": 1, "generator/nll": 0.5, "odd": 1.0}, {"step": 2, "valid/nll": 0.0, "odd": None})
    (tmp_path / "samples").mkdir()
    for step in range(1, 6):
        (tmp_path / "samples" / f"{step:07d}.txt").write_text("x\n")
    page = report.write(tmp_path).read_text()
    assert [step for step in range(1, 6) if f"<b>step {step}</b>" in page] == [1, 3, 5]
    summary = json.loads((tmp_path / "report.json").read_text())
    assert summary["final"]["odd"] == 1 and summary["best"] == {"valid/nll": {"value": 0.0, "step": 2}}


def test_curves_stand_beside_the_baseline_and_nothing_measured_is_nothing_drawn(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots, "curves", lambda lines, path, *, title, unit, levels: drawn.update({title: (lines, levels)})
    )
    baselines = {"baseline/best_ngram": 2.25, "baseline/unigram": 3.0}
    report.draw([{"step": 1, "valid/nll": 2.0, "generator/grad_norm": None, **baselines}], tmp_path)
    assert drawn == {"likelihood": ({"valid/nll": ([1], [2.0])}, {"best_ngram": 2.25})}


def test_a_running_mean_trails_its_curve(tmp_path, monkeypatch):
    monkeypatch.setattr(plots.plt, "close", lambda figure: None)
    plots.curves({"line": (list(range(200)), list(range(200)))}, tmp_path / "curve.png", title="", unit="")
    faint, mean = plots.plt.gcf().axes[0].lines
    monkeypatch.undo()
    plots.plt.close("all")
    assert len(faint.get_xdata()) == 200
    np.testing.assert_allclose(mean.get_xdata() - mean.get_ydata(), 1.5)  # of the last four


def test_the_verdict_does_not_flatter():
    assert "worse than best n-gram (1.000)" in report.verdict({"test/nll": 1.5, "baseline/best_ngram": 1.0})
    images = {"valid/nll": 0.3, "valid/nats_per_image": 19.2, "baseline/independent_pixels": 25.3}
    assert report.verdict(images) == "19.200 nats/image on valid, better than independent pixels (25.300)"
    assert report.verdict({"valid/nll": 1.5}) == ""


def test_an_empty_run_still_has_a_page(tmp_path):
    records(tmp_path)
    assert report.write(tmp_path).exists()


def test_a_grid_shows_every_image_where_it_belongs(tmp_path):
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((5, 4, 4, 3), 20, np.uint8)
    plots.image_grid(images, tmp_path / "grid.png", side=8)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 * 10 + 2, 3 * 10 + 2, 3)
    centres = [sheet[10 * (i // 3) + 6, 10 * (i % 3) + 6, 0] for i in range(5)]
    assert centres == [0, 20, 40, 60, 80]
    gaps = (sheet[[0, 1, 10, 11, 20, 21]] == 128).all() and (sheet[:, [0, 1, 10, 11, 20, 21, 30, 31]] == 128).all()
    assert gaps and (sheet[2:10, 2:10] == 0).all()


@pytest.mark.parametrize(("data", "best"), [("same", {"valid/nll": "b"}), ("other", {})])
def test_a_sweep_names_the_best_of_those_that_saw_the_same_data(tmp_path, config, data, best):
    for name, value, source in (("a", 2.0, "same"), ("b", 1.5, data)):
        records(tmp_path / name, {"step": 1, "valid/nll": value, "generator/grad_norm": 1 / value})
        (tmp_path / name / "config.json").write_text(json.dumps({"data.name": source, "seed": 0}))
        report.write(tmp_path / name)
    page = report.compare(config, tmp_path, ["a", "b"]).read_text()
    assert json.loads((tmp_path / "report.json").read_text())["best"] == best
    assert ('class="number best">1.5<' in page) == bool(best) and 'href="b/report.html"' in page
