"""The page a run ends in says what was reached and beside what."""

import json

import pytest

from gentrain.errors import ReportError, Stopped
from gentrain.evaluators.exact import METRICS as EXACT
from gentrain.evaluators.fidelity import METRICS as FIDELITY
from gentrain.evaluators.modes import METRICS as MODES
from gentrain.reporting import plots, report

EVALUATORS = ("likelihood", "baselines", "transcription")


def test_the_report_compares_escapes_and_carries_its_pictures(tmp_path, write_run):
    workdir = tmp_path / "a<script>b"
    measured = {"valid/nll": 2.1, "valid/nats_per_char": 2.1, "baseline/best_ngram": 2.25}
    write_run(
        workdir, [{"step": 1, "generator/nll": 3.0, "valid/nll": 2.0}, {"step": 2, "generator/nll": 2.0, **measured}]
    )
    (workdir / "samples").mkdir()
    (workdir / "samples" / "0000002.txt").write_text("<script>alert(1)</script>\n")
    page = report.write(workdir).read_text()
    assert "2.100 nats/char on valid, better than best n-gram (2.250)" in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,") == len(list((workdir / "plots").iterdir())) == 1
    summary = json.loads((workdir / "report.json").read_text())
    assert summary["best"]["valid/nll"] == {"value": 2.0, "step": 1} and summary["final"]["valid/nll"] == 2.1


def test_the_last_number_counts_and_only_held_out_ones_are_best(tmp_path, write_run):
    write_run(tmp_path, [{"step": 1, "generator/nll": 0.5, "odd": 1.0}, {"step": 2, "valid/nll": 0.0, "odd": None}])
    (tmp_path / "samples").mkdir()
    for step in range(1, 6):
        (tmp_path / "samples" / f"{step:07d}.txt").write_text("x\n")
    page = report.write(tmp_path).read_text()
    assert [step for step in range(1, 6) if f"<b>step {step}</b>" in page] == [1, 3, 5]
    summary = json.loads((tmp_path / "report.json").read_text())
    assert summary["final"]["odd"] == 1 and summary["best"] == {"valid/nll": {"value": 0.0, "step": 2}}


def test_best_is_lowest_or_highest_as_declared_and_never_given_to_a_neutral_metric():
    lines = [
        {"step": 1, "exact/nll_oracle": 1.0, "exact/entropy": 1.0, "exact/excess_njs": 0.3, "modes/captured": 5},
        {"step": 2, "exact/nll_oracle": 2.0, "exact/entropy": 2.0, "exact/excess_njs": 0.1, "modes/captured": 8},
        {"step": 3, "exact/nll_oracle": 3.0, "exact/entropy": 3.0, "exact/excess_njs": 0.2, "modes/captured": 8},
        {"step": 3, "fidelity/frechet": 4.0, "fidelity/frechet_floor": 1.0, "exact/excess_njs_se": 0.1},
        {"step": 4, "fidelity/frechet": 5.0, "fidelity/frechet_floor": 0.5, "exact/entropy_sampled": 1.0},
    ]
    summary = report.summarise(lines, EXACT | MODES | FIDELITY)
    assert summary["best"] == {
        "exact/excess_njs": {"value": 0.1, "step": 2},
        "modes/captured": {"value": 8, "step": 2},  # the first of several
        "fidelity/frechet": {"value": 4.0, "step": 3},
    }
    assert summary["final"]["exact/nll_oracle"] == 3.0 and summary["final"]["fidelity/frechet"] == 5.0


def test_curves_stand_beside_the_baseline_and_nothing_measured_is_nothing_drawn(tmp_path, monkeypatch, config_json):
    drawn = {}

    def note(lines, path, *, title, unit, levels):
        drawn[path.name] = title, unit, lines, levels

    monkeypatch.setattr(plots, "curves", note)
    baselines = {"baseline/best_ngram": 2.25, "baseline/ngram_1": 3.0}
    rates = {"valid/token_error_rate": 0.1, "valid/sequence_error_rate": 0.4}
    other = {"generator/loss": 0.5, "critic/loss": 0.7, "generator/grad_norm": None, "undeclared": 1.0}
    record = {"step": 1, "valid/nll": 2.0, "valid/perplexity": 7.4, "samples/length": 9.0, **other}
    paths = report.draw([{**record, **baselines, **rates}], tmp_path, report.all_metrics(config_json))
    line = lambda *names: {name: ([1], [(record | rates)[name]]) for name in names}
    assert drawn == {
        "nats_token.png": ("nats/token", "nats/token", line("valid/nll"), {"baseline/best_ngram": 2.25}),
        "share.png": ("share", "share", line(*sorted(rates)), None),
        "loss.png": ("loss", "its own", line("critic/loss", "generator/loss"), {}),
        "tokens.png": ("tokens", "tokens", line("samples/length"), {}),
    }
    assert [path.name for path in paths] == ["nats_token.png", "share.png", "loss.png", "tokens.png"]


def test_the_verdict_does_not_flatter():
    assert "worse than best n-gram (1.000)" in report.verdict({"test/nll": 1.5, "baseline/best_ngram": 1.0}, EVALUATORS)
    images = {"valid/nll": 0.3, "valid/nats_per_image": 19.2, "baseline/independent_pixels": 25.3}
    assert report.verdict(images, EVALUATORS) == "19.200 nats/image on valid, better than independent pixels (25.300)"
    assert report.verdict({"valid/nll": 1.5}, EVALUATORS) == ""
    wrong = {"test/token_error_rate": 0.098, "test/sequence_error_rate": 0.3812}
    assert report.verdict(wrong, EVALUATORS) == "9.8 % of tokens wrong, 38.1 % of sequences on test"
    both = {"test/nll": 1.5, "baseline/best_ngram": 2.0, **wrong, "test/bleu": 71.04}
    assert report.verdict(both, EVALUATORS) == (
        "1.500 nats/token on test, better than best n-gram (2.000);"
        " 9.8 % of tokens wrong, 38.1 % of sequences on test, BLEU 71.0"
    )
    assert report.verdict(wrong, ("likelihood",)) == ""  # said by the evaluator that measured it


def test_an_empty_run_still_has_a_page(tmp_path, write_run):
    write_run(tmp_path, [])
    assert report.write(tmp_path).exists()


@pytest.mark.parametrize(("steps", "chosen"), [(0, []), (1, [0]), (2, [0, 1]), (7, [0, 3, 6])])
def test_the_first_a_middle_and_the_last_of_the_samples_are_shown(tmp_path, steps, chosen):
    for step in range(steps):
        (tmp_path / f"{step:07d}.txt").write_text("x")
    for foreign in (".DS_Store", "._0000001.txt", "Thumbs.db", "notes.txt"):
        (tmp_path / foreign).write_text("x")
    (tmp_path / "old").mkdir()
    assert report.first_middle_last(tmp_path) == {f"step {step}": tmp_path / f"{step:07d}.txt" for step in chosen}
    assert report.first_middle_last(tmp_path / "none") == {}


def test_a_report_that_cannot_be_written_says_that_all_is_trained(tmp_path, write_run, monkeypatch):
    write_run(tmp_path, [{"step": step, "valid/nll": 1.0} for step in (1, 2)])
    (tmp_path / "report.json").write_text("")

    def broken(*_, **__):
        raise ValueError("no such colour\nand more")

    with (
        monkeypatch.context() as patch,
        pytest.raises(ReportError, match=r"trained and saved.*ValueError: no such col"),
    ):
        patch.setattr(plots, "curves", broken)
        report.write(tmp_path)
    with pytest.raises(Stopped), monkeypatch.context() as patch:  # a signal is no fault of the report
        patch.setattr(plots, "curves", lambda *_, **__: (_ for _ in ()).throw(Stopped("SIGTERM")))
        report.write(tmp_path)
    assert not report.is_written(tmp_path)
    report.write(tmp_path)
    assert report.is_written(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.warns(UserWarning, match="report.json is damaged"):
        assert not report.is_written(tmp_path)


def test_samples_that_are_no_text_are_shown_as_far_as_they_are(tmp_path, write_run):
    write_run(tmp_path, [{"step": 1, "valid/nll": 1.0}])
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "0000001.txt").write_bytes(b"smi\xffth")
    assert "smi\ufffdth" in report.write(tmp_path).read_text()
