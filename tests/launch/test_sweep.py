"""A sweep goes on past a variant that fails, says which and why, and tries only those again."""

import json

import jax
import pytest

from configs import surnames_likelihood
from gentrain import files, train
from gentrain.errors import (
    CheckpointError,
    Corrupted,
    DataError,
    Diverged,
    LostPeer,
    ReportError,
    Stopped,
    WorkdirInUse,
)
from gentrain.options import check
from gentrain.reporting import report
from gentrain.runtime.signals import Stop
from launch import cli
from launch.sweep import sweep

SMALL = (
    *("--config=configs/surnames_likelihood.py", "--config.steps=2", "--config.model.width=8"),
    *("--config.data.batch_size=8", "--config.data.length=8", "--config.log.loggers=()"),
    *("--config.evaluate.batches=1", "--config.evaluate.evaluators=('likelihood',)"),
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run({seed: error}): a sweep over seeds 0 to 3 of which some fail; returns which ran and what was reported."""

    def run(errors, report_error=None):
        ran, reported = [], []
        config = surnames_likelihood.get_config()
        config.sweep = tuple({"seed": seed} for seed in range(4))

        def fake_train(variant, workdir, stop, allow=()):
            ran.append(variant.seed)
            if variant.seed in errors:
                raise errors[variant.seed]

        def fake_compare(folders, workdir, failed, figures):
            assert folders == {name: workdir / name for name in folders}
            reported.extend((list(folders), failed))
            if report_error:
                raise report_error
            return workdir / "report.html"

        monkeypatch.setattr(train, "train", fake_train)
        monkeypatch.setattr(report, "compare", fake_compare)
        monkeypatch.setattr(report, "refresh", lambda folders, workdir, failed: None)
        try:
            sweep(config, tmp_path, "train", Stop())
        except Exception as error:
            return ran, reported, error
        return ran, reported, None

    return run


def test_those_after_a_failure_run_and_the_first_failure_is_what_the_sweep_ends_with(run, capsys):
    ran, (names, failed), error = run({1: DataError("no such file"), 2: Diverged("not finite")})
    assert ran == [0, 1, 2, 3] and names == ["seed=0", "seed=3"]
    assert failed == {
        "seed=1": "DataError: no such file (exit code 4)",
        "seed=2": "Diverged: not finite (exit code 3)",
    }
    assert isinstance(error, DataError) and "no such file" in str(error) and "seed=1; seed=2 failed" in str(error)
    said = capsys.readouterr().out
    assert "seed=2 failed, exit code 3: Diverged: not finite\n" in said and "2 of 4 variants done" in said


def test_a_report_that_fails_comes_after_variants_that_failed(run):
    for errors, kind in (({}, ReportError), ({3: WorkdirInUse("taken")}, WorkdirInUse)):
        ran, _, error = run(errors, ReportError("the disk is full"))
        assert ran == [0, 1, 2, 3] and type(error) is kind and "the report failed" in str(error)


@pytest.mark.parametrize(
    "error", [Stopped("SIGTERM"), LostPeer("gone"), Corrupted("copies differ"), ZeroDivisionError("a fault")]
)
def test_a_signal_a_lost_peer_and_a_fault_of_the_program_end_it_at_once(run, error):
    assert run({1: error}) == ([0, 1], [], error)


def test_in_several_processes_a_failure_that_may_be_of_one_of_them_ends_it_at_once(run, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    error = CheckpointError("only process 0 knows")
    assert run({1: error}) == ([0, 1], [], error)


def test_a_variant_that_does_not_fit_the_devices_is_refused_before_any_is_trained(tmp_path, main):
    run = main(*SMALL, "--config.sweep=({'seed':1},{'mesh.data':2})", f"--workdir={tmp_path}/run")
    assert run.returncode == 2 and "asks for 2 devices" in run.stderr and not (tmp_path / "run").exists()


def test_the_next_start_tries_those_that_failed_and_a_variants_folder_is_a_run_of_its_own(tmp_path, main):
    text, workdir = tmp_path / "names.txt", tmp_path / "run"
    late = f"{{'data.name':'text:{text}','data.text.unit':'line'}}"
    command = (*SMALL, f"--config.sweep=({late},{{'seed':1}})")
    missing, there = check.variant_name({"data.name": f"text:{text}", "data.text.unit": "line"}), "seed=1"
    first = main(*command, f"--workdir={workdir}")
    assert first.returncode == 4 and f"{missing} failed" in first.stderr and "Traceback" not in first.stderr
    report = json.loads((workdir / "report.json").read_text())
    assert list(report["runs"]) == [there] and "exit code 4" in report["failed"][missing]
    assert str(text) in (workdir / "report.html").read_text()
    status = files.read_json(workdir / missing / "status.json")
    assert (status["state"], status["exit_code"]) == ("failed", 4) and str(text) in status["reason"]

    text.write_text("\n".join(f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"))
    again = main(*command, f"--workdir={workdir}")
    assert again.returncode == 0 and again.stdout.count("already done") == 1, again.stderr
    report = json.loads((workdir / "report.json").read_text())
    assert set(report["runs"]) == {missing, there} and not report["failed"]

    config = cli.parse(["launch", *command, f"--workdir={workdir}/{there}"]).config
    assert config.seed == 1 and config.sweep == ()
    sampled = main(*command, f"--workdir={workdir}/{there}", "--mode=sample", "--config.sample.count=3")
    assert sampled.returncode == 0 and len(sampled.stdout.splitlines()) == 3
