"""python -m launch.report compares runs that were made together or apart, and says at once what came out."""

import json

import pytest

from gentrain import files
from launch import report


@pytest.fixture
def runs(tmp_path):
    """Four runs, a variant's two seeds in each of two folders."""
    config = {
        "steps": 1,
        "objective.name": "likelihood",
        "model.name": "lstm",
        "data.batch_size": 1,
        "sample.count": 1,
        "evaluate.evaluators": ["likelihood"],
        "report.figures": [],
    }
    for folder, width, values in (("one", 8, (2.0, 2.1)), ("two", 16, (1.0, 1.11))):
        for seed, value in enumerate(values):
            path = tmp_path / folder / f"seed={seed}"
            path.mkdir(parents=True)
            files.write_json(path / "config.json", config | {"seed": seed, "model.width": width})
            (path / "metrics.jsonl").write_text(json.dumps({"step": 1, "time": 0, "valid/nll": value}) + "\n")
    return tmp_path


def test_sweeps_and_runs_that_were_made_apart_are_compared(runs, capsys):
    folders = [str(runs / "one"), *(str(runs / "two" / f"seed={seed}") for seed in range(2))]
    assert report.main(["report", *folders, "--out", str(runs / "out")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Width = 16 is best on valid NLL") and said.endswith(f"{runs}/out/report.html\n")
    summary = files.read_json(runs / "out" / "report.json")
    assert list(summary["runs"]) == ["one/seed=0", "one/seed=1", "two/seed=0", "two/seed=1"]
    assert summary["metrics"]["valid/nll"]["ranking"]["best"] == "width = 16"
    assert 'href="../one/seed=0/report.html"' in (runs / "out" / "report.html").read_text()


def test_one_run_and_one_sweep_are_reported_where_they_are(runs, capsys):
    for folder in (runs / "one" / "seed=0", runs / "one"):
        assert report.main(["report", str(folder)]) == 0
        assert (folder / "report.html").exists() and (folder / "report.json").exists()
    assert list(files.read_json(runs / "one" / "report.json")["runs"]) == ["seed=0", "seed=1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["gone"], "gone is no workdir"), (["--ou=x"], "--ou=x"), (["--out=x"], "no workdir is named")],
)
def test_a_mistake_is_one_line(runs, capsys, arguments, said):
    assert report.main(["report", *arguments]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


def test_help_says_how(capsys):
    assert report.main(["report", "--help"]) == 0 and "--out=DIR" in capsys.readouterr().out
