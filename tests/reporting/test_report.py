"""The page a run ends in says what was reached and beside what."""

import json
import os
import re

import pytest

from gentrain import files
from gentrain.errors import ReportError, Stopped
from gentrain.evaluators.exact import METRICS as EXACT
from gentrain.evaluators.fidelity import METRICS as FIDELITY
from gentrain.evaluators.modes import METRICS as MODES
from gentrain.reporting import page, report, runs

EVALUATORS = ("likelihood", "baselines", "transcription")


def test_the_report_of_a_run_opens_with_what_it_reached_beside_what_to_compare_with(tmp_path, write_run):
    workdir = tmp_path / "a<script>b"
    measured = {"valid/nll": 2.1, "valid/nats_per_char": 2.1, "baseline/best_ngram": 2.25}
    before = {"generator/nll": 3.0, "valid/nll": 2.0, "valid/nats_per_char": 2.0}
    write_run(workdir, [{"step": 1, **before}, {"step": 2, "generator/nll": 2.0, **measured}])
    (workdir / "samples").mkdir()
    (workdir / "samples" / "0000002.txt").write_text("<script>alert(1)</script>\n")
    page = report.write(workdir).read_text()
    reached = "Likelihood reached valid NLL 2.10 nats/char (better than baseline best ngram, 2.25) after 2 steps."
    assert reached in page and page.index(reached) < page.index("<h2>")
    assert "One seed: no interval" in page and "valid NLL 2 at step 1, 2.10 at the end" in page
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "<title>a&lt;script&gt;b</title>" in page
    summary = json.loads((workdir / "report.json").read_text())
    assert summary["best"]["valid/nll"] == {"value": 2.0, "step": 1} and summary["final"]["valid/nll"] == 2.1
    assert summary["curves"]["generator/nll"]["lines"]["likelihood"] == {"steps": [1, 2], "mean": [3.0, 2.0]}


def test_the_last_number_counts_and_only_held_out_ones_are_best(tmp_path, write_run):
    write_run(tmp_path, [{"step": 1, "generator/nll": 0.5, "odd": 1.0}, {"step": 2, "valid/nll": 0.0, "odd": None}])
    (tmp_path / "samples").mkdir()
    for step in range(1, 6):
        (tmp_path / "samples" / f"{step:07d}.txt").write_text("x\n")
    page = report.write(tmp_path).read_text()
    assert [step for step in range(1, 6) if f"<small>step {step}</small>" in page] == [1, 3, 5]
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
    summary = runs.summarise(lines, EXACT | MODES | FIDELITY)
    assert summary["best"] == {
        "exact/excess_njs": {"value": 0.1, "step": 2},
        "modes/captured": {"value": 8, "step": 2},  # the first of several
        "fidelity/frechet": {"value": 4.0, "step": 3},
    }
    assert summary["final"]["exact/nll_oracle"] == 3.0 and summary["final"]["fidelity/frechet"] == 5.0


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


def test_a_page_needs_no_other_file_and_no_network(tmp_path, write_run):
    write_run(tmp_path, [{"step": 1, "valid/nll": 1.0}, {"step": 2, "valid/nll": 0.5}])
    page = report.write(tmp_path).read_text()
    assert not re.search(r"""(src|href)=(?!["']?data:)""", page)
    assert "uPlot" in page and len(page) < 200_000 and "http-equiv" not in page


def test_a_page_loads_itself_anew_while_the_run_goes_on(tmp_path, write_run):
    folders = {"run": tmp_path / "run", "later": tmp_path / "later"}
    write_run(tmp_path / "run", [{"step": 1, "valid/nll": 1.0}])
    report.refresh(folders, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "http-equiv=refresh" in text and ">running<" in text
    assert list(json.loads((tmp_path / "report.json").read_text())["runs"]) == ["run"]
    write_run(tmp_path / "later", [])
    report.refresh(folders, tmp_path)  # so soon it is left as it is
    assert (tmp_path / "report.html").read_text() == text
    os.utime(tmp_path / "report.html", (0, 0))
    report.refresh(folders, tmp_path)
    assert list(json.loads((tmp_path / "report.json").read_text())["runs"]) == ["run", "later"]
    report.refresh(folders, tmp_path, live=False)
    text = (tmp_path / "report.html").read_text()
    assert "http-equiv" not in text and ">running<" not in text


def test_a_page_that_cannot_be_refreshed_ends_no_run(tmp_path, write_run, monkeypatch):
    write_run(tmp_path, [{"step": 1, "valid/nll": 1.0}])
    monkeypatch.setattr(page, "render", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match=r"its report is not written \(ZeroDivisionError"):
        report.refresh({"run": tmp_path}, tmp_path)


@pytest.mark.parametrize(("steps", "chosen"), [(0, []), (1, [0]), (2, [0, 1]), (7, [0, 3, 6])])
def test_the_first_a_middle_and_the_last_of_the_samples_are_shown(tmp_path, write_run, steps, chosen):
    write_run(tmp_path, [])
    (tmp_path / "samples" / "old").mkdir(parents=True)
    for step in range(steps):
        (tmp_path / "samples" / f"{step:07d}.txt").write_text("x")
    for foreign in (".DS_Store", "._0000001.txt", "Thumbs.db", "notes.txt"):
        (tmp_path / "samples" / foreign).write_text("x")
    shown = report.samples([runs.read("a", tmp_path)]).get("likelihood", [])
    assert shown == [(f"step {step}", tmp_path / "samples" / f"{step:07d}.txt") for step in chosen]


def test_variants_show_their_newest_samples_and_pictures_their_classes(tmp_path, write_run):
    for name in ("a", "b"):
        write_run(tmp_path / name, [], {"x": name})
    for step in (1, 20):
        (tmp_path / "b" / "samples").mkdir(exist_ok=True)
        (tmp_path / "b" / "samples" / f"{step:07d}.png").write_bytes(b"")
    spec = {"context_vocab": 3, "context_shape": [1], "context_names": []}
    files.write_json(tmp_path / "b" / "spec.json", spec)
    read = lambda: report.samples([runs.read(name, tmp_path / name) for name in ("a", "b")])
    path = tmp_path / "b" / "samples" / "0000020.png"
    assert read() == {"x = b": [("step 20; row by row, in turn: 0, 1, 2", path)]}
    files.write_json(tmp_path / "b" / "spec.json", spec | {"context_names": ["ant", "bee", "cat"]})
    assert read() == {"x = b": [("step 20; row by row, in turn: ant, bee, cat", path)]}


def test_the_speed_of_a_model_that_makes_no_tokens_is_told_in_examples(tmp_path, write_run):
    for name, model in (("text", "lstm"), ("images", "dcgan")):
        write_run(tmp_path / name, [{"step": 10, "tokens_per_second": 5.0}], {"model.name": model})
        files.write_json(tmp_path / name / "goodput.json", {"seconds": {"train": 2.0}, "wall": 3.0})
    text, images = (runs.read(name, tmp_path / name).cost for name in ("text", "images"))
    assert text["examples_per_second"] == images["examples_per_second"] == 20.0
    assert text["tokens_per_second"] == 5.0 and "tokens_per_second" not in images


def test_a_report_that_cannot_be_written_says_that_all_is_trained(tmp_path, write_run, monkeypatch):
    write_run(tmp_path, [{"step": step, "valid/nll": 1.0} for step in (1, 2)])
    (tmp_path / "report.json").write_text("")

    def broken(*_, **__):
        raise ValueError("no such colour\nand more")

    with (
        monkeypatch.context() as patch,
        pytest.raises(ReportError, match=r"trained and saved.*ValueError: no such col"),
    ):
        patch.setattr(page, "render", broken)
        report.write(tmp_path)
    with pytest.raises(Stopped), monkeypatch.context() as patch:  # a signal is no fault of the report
        patch.setattr(page, "render", lambda *_: (_ for _ in ()).throw(Stopped("SIGTERM")))
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
