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
    rates = {"valid/token_error_rate": 0.1, "valid/sequence_error_rate": 0.4}
    report.draw([{"step": 1, "valid/nll": 2.0, "generator/grad_norm": None, **baselines, **rates}], tmp_path)
    assert drawn == {
        "likelihood": ({"valid/nll": ([1], [2.0])}, {"best_ngram": 2.25}),
        "error rate": ({name: ([1], [value]) for name, value in rates.items()}, {}),
    }


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
    wrong = {"test/token_error_rate": 0.098, "test/sequence_error_rate": 0.3812}
    assert report.verdict(wrong) == "9.8 % of tokens wrong, 38.1 % of sequences on test"
    both = report.verdict({"test/nll": 1.5, "baseline/best_ngram": 2.0, **wrong, "test/bleu": 71.04})
    assert both == (
        "1.500 nats/token on test, better than best n-gram (2.000);"
        " 9.8 % of tokens wrong, 38.1 % of sequences on test, BLEU 71.0"
    )


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


def sweep_of(tmp_path, config, variants):
    """Compares variants {name: (changes to the config, what was reached)}; returns report.json and the page."""
    for name, (changes, reached) in variants.items():
        records(tmp_path / name, {"step": 1, **reached})
        (tmp_path / name / "config.json").write_text(json.dumps({"data.name": "same", "steps": 1, **changes}))
        report.write(tmp_path / name)
    page = report.compare(config, tmp_path, list(variants)).read_text()
    return json.loads((tmp_path / "report.json").read_text()), page


def test_errors_are_best_when_low_and_bleu_when_high(tmp_path, config):
    rates = lambda token, bleu: {
        "valid/token_error_rate": token,
        "valid/sequence_error_rate": 1 - token,
        "v/bleu": bleu,
    }
    found, _ = sweep_of(tmp_path, config, {"a": ({"x": 1}, rates(0.2, 30.0)), "b": ({"x": 2}, rates(0.3, 20.0))})
    assert found["best"] == {"valid/token_error_rate": "a", "valid/sequence_error_rate": "b", "v/bleu": "a"}
    assert found["over_seeds"] == {}


def test_variants_that_differ_in_their_seed_only_are_told_by_mean_and_spread(tmp_path, config):
    def variant(width, seed, nll, **more):
        return {"width": width, "seed": seed, "init_from": f"runs/{seed}"}, {"valid/nll": nll, **more}

    found, page = sweep_of(
        tmp_path,
        config,
        {
            "width=8,seed=0": variant(8, 0, 1.0, **{"valid/bleu": 50.0}),
            "width=8,seed=1": variant(8, 1, 3.0, **{"valid/bleu": 54.0}),
            "width=8,seed=2": variant(8, 2, 2.6),
            "width=16,seed=0": variant(16, 0, 2.0),
            "width=16,seed=1": variant(16, 1, 2.1),
            "width=32,seed=0": variant(32, 0, 0.5),
        },
    )
    assert found["over_seeds"] == {
        "width=8": {
            "valid/nll": [pytest.approx(2.2), pytest.approx(np.sqrt((1.44 + 0.64 + 0.16) / 2)), 3],
            "valid/bleu": [52.0, pytest.approx(np.sqrt(8)), 2],
        },
        "width=16": {"valid/nll": [pytest.approx(2.05), pytest.approx(0.05 * np.sqrt(2)), 2]},
    }
    assert found["best"]["valid/nll"] == "width=32,seed=0"  # of single runs; of the groups the steadier is better
    table = page.split("Over seeds")[1]
    assert 'class="number best">2.05 ± 0.07071 (2)<' in table and 'class="number">2.2 ± 1.058 (3)<' in table


def test_seeds_alone_are_one_group(tmp_path, config):
    found, page = sweep_of(tmp_path, config, {f"seed={i}": ({"seed": i}, {"valid/nll": float(i)}) for i in range(2)})
    assert found["over_seeds"] == {"all": {"valid/nll": [0.5, pytest.approx(np.sqrt(0.5)), 2]}}
    assert "best" not in page.split("Over seeds")[1].split("Last values")[0]  # there is nothing to be better than
