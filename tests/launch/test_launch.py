"""The program as its users run it: start, resume, stop, fail, look, on one process and on two."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np
import pytest

from gentrain import files, sharding, train
from gentrain.best import step_of
from gentrain.errors import WorkdirInUse
from gentrain.runtime import peers
from gentrain.runtime.lock import lock
from launch import prepare
from tests.helpers import ROOT, environment, launch

SMALL = (
    *("--config=configs/surnames_likelihood.py", "--config.steps=6"),
    *("--config.model.width=16", "--config.data.batch_size=16", "--config.optimizer.warmup_steps=2"),
    *("--config.evaluate.batches=2", "--config.evaluate.every_steps=3", "--config.evaluate.baselines.ngram_order=2"),
    *("--config.log.every_steps=1", "--config.checkpoint.every_steps=3"),
)


def start(*arguments, **extra):
    command = [sys.executable, "-m", "launch", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(**extra), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, child, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def test_a_run_leaves_what_the_readme_says_and_is_done_the_second_time(tmp_path, main):
    workdir = tmp_path / "run"
    first = launch(*SMALL, f"--workdir={workdir}")
    assert first.returncode == 0, first.stderr
    assert "best n-gram" in first.stdout and "sampled" in first.stdout and "nats/char" in first.stdout
    assert {path.name for path in workdir.iterdir()} >= {
        *("config.json", "metrics.jsonl", "tensorboard", "checkpoints", "samples"),
        *("status.json", "report.html", "report.json"),
    }
    records = files.read_jsonl(workdir / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(7))
    assert all("generator/nll" in record for record in records[1:])
    rates = [record["generator/learning_rate"] for record in records[1:4]]
    assert rates == pytest.approx([0, 0.0025, 0.005])  # each line is about its own steps
    assert [record["step"] for record in records if "valid/nll" in record] == [0, 3, 6]
    assert len(list((workdir / "samples").iterdir())) == 3 and list((workdir / "tensorboard").iterdir())
    assert json.loads((workdir / "status.json").read_text())["state"] == "done"
    report = json.loads((workdir / "report.json").read_text())
    assert report["final"]["step"] == 6 and report["best"]["valid/nll"]["value"] > 0
    assert "better than" in report["conclusion"][0] or "worse than" in report["conclusion"][0]
    assert not report["live"] and "http-equiv" not in (workdir / "report.html").read_text()
    again = main(*SMALL, f"--workdir={workdir}")
    assert again.returncode == 0 and "already done at step 6" in again.stdout

    # The workdir alone is enough, and knows the run: the same samples, and others by another seed.
    sampled = [
        main(f"--workdir={workdir}", "--mode=sample", "--config.sample.count=8", *seed).stdout
        for seed in ((), ("--config.sample.seed=0",), ("--config.sample.seed=1",))
    ]
    assert sampled[0] == sampled[1] != sampled[2] and len(sampled[0].splitlines()) == 8
    nowhere = main(f"--workdir={tmp_path / 'nowhere'}", "--mode=sample")
    assert nowhere.returncode == 2 and "nowhere holds no run" in nowhere.stderr

    longer = main(*SMALL, f"--workdir={workdir}", "--config.steps=8")
    assert longer.returncode == 0 and "resuming at step 6" in longer.stdout and "steps: 6 -> 8" in longer.stdout
    assert "valid/nll" in files.read_jsonl(workdir / "metrics.jsonl")[-1]  # the end is always evaluated
    other = main(*SMALL, f"--workdir={workdir}", "--config.model.width=32")
    assert other.returncode == 2 and "model.width: 16 -> 32" in other.stderr

    measured = main(*SMALL, f"--workdir={workdir}", "--mode=evaluate", "--split=test")
    assert measured.returncode == 0 and "test/nll" in measured.stdout
    assert measured.stdout.endswith(f"{workdir}/evaluations/0000008-test.json\n")
    assert json.loads((workdir / "evaluations/0000008-test.json").read_text())["step"] == 8
    best = main(f"--workdir={workdir}", "--mode=evaluate", "--step=best", "--config.evaluate.evaluators=('samples',)")
    step = step_of(workdir, "best")
    assert best.returncode == 0 and "samples/length" in best.stdout and "valid/nll" not in best.stdout
    assert best.stdout.endswith(f"{workdir}/evaluations/{step:07d}-valid.json\n")
    other = main(*SMALL, f"--workdir={workdir}", "--mode=evaluate", "--config.model.width=32")
    assert other.returncode == 2 and "model.width: 16 -> 32" in other.stderr
    shown = ("--mode=sample", "--config.sample.count=5", "--config.sample.temperature=0.5")
    sampled = main(*SMALL, f"--workdir={workdir}", *shown)
    assert sampled.returncode == 0 and sampled.stdout.count("\n") == 5

    child = main(*SMALL, f"--workdir={tmp_path}/child", f"--config.init_from={workdir}")
    assert child.returncode == 0 and f"from the parameters of {workdir} at step 8" in child.stdout
    another_shape = ("--config.model.layers=2", f"--config.init_from={workdir}")
    wrong = launch(*SMALL, f"--workdir={tmp_path}/wrong", *another_shape)
    assert wrong.returncode == 5 and "params/generator" in wrong.stderr and "Traceback" not in wrong.stderr


def test_sigterm_saves_and_leaves_with_42_and_kill_9_loses_nothing_that_was_saved(tmp_path, main):
    steps = (
        *("--config.steps=150", "--config.checkpoint.every_steps=50"),
        *("--config.log.every_steps=5", "--config.evaluate.every_steps=1000"),
    )
    straight = main(*SMALL, *steps, f"--workdir={tmp_path}/straight")
    assert straight.returncode == 0, straight.stderr

    workdir, status = tmp_path / "cut", tmp_path / "cut" / "status.json"
    child = start(*SMALL, *steps, f"--workdir={workdir}")
    wait_for(lambda: (files.read_json(status).get("step") or 0) >= 10, child)
    child.send_signal(signal.SIGTERM)
    signalled = time.monotonic()
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 42 and time.monotonic() - signalled < 10, errors
    saved = int(errors.split("at step ")[1].split(",")[0])
    assert saved >= 10 and files.read_json(status)["state"] == "stopped"

    child = start(*SMALL, *steps, f"--workdir={workdir}")
    wait_for(lambda: (files.read_json(status).get("step") or 0) >= 60, child)
    child.kill()
    assert f"resuming at step {saved}" in child.communicate()[0]
    assert main(*SMALL, *steps, f"--workdir={workdir}").returncode == 0
    one, other = (files.read_json(tmp_path / name / "report.json")["final"] for name in ("straight", "cut"))
    for name in ("valid/nll", "generator/grad_norm", "samples/entropy"):
        assert one[name] == other[name], name


def test_sigterm_before_the_first_step_is_no_traceback(tmp_path):
    child = start(*SMALL, f"--workdir={tmp_path}/run")
    wait_for(lambda: (tmp_path / "run" / "status.json").exists(), child)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 42 and "Traceback" not in errors


def test_a_reader_that_goes_away_ends_no_run(tmp_path):
    with start(*SMALL, f"--workdir={tmp_path}/run") as child:
        child.stdout.readline()
        child.stdout.close()
        errors = child.stderr.read()
    assert child.wait(timeout=60) == 0 and "Traceback" not in errors, errors
    assert files.read_json(tmp_path / "run" / "status.json")["state"] == "done"


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 5), (errno.EROFS, 2)])
def test_what_the_disk_refuses_is_one_line(tmp_path, main, monkeypatch, number, code):
    def refused(*_, **__):
        raise OSError(number, "refused", "metrics.jsonl")

    monkeypatch.setattr(train, "train", refused)
    run = main(*SMALL, f"--workdir={tmp_path}")
    assert run.returncode == code and "metrics.jsonl" in run.stderr and run.stderr.count("\n") == 1


def test_one_job_a_workdir(tmp_path, main):
    assert WorkdirInUse.exit_code == 6
    with lock(tmp_path):
        second = main(*SMALL, f"--workdir={tmp_path}")
    assert second.returncode == 6 and f"process {os.getpid()} " in second.stderr and "Traceback" not in second.stderr


def test_what_cannot_be_trained_on_or_written_to(tmp_path, main):
    missing = main(*SMALL, f"--workdir={tmp_path}/a", "--config.data.name=text:/no/such/file")
    assert missing.returncode == 4 and "/no/such/file" in missing.stderr and "Traceback" not in missing.stderr
    (tmp_path / "file").write_text("")
    occupied = main(*SMALL, f"--workdir={tmp_path}/file")
    assert occupied.returncode == 2 and "workdir" in occupied.stderr and "Traceback" not in occupied.stderr
    nothing = main(*SMALL, f"--workdir={tmp_path}/nothing", "--mode=sample")
    assert nothing.returncode == 5 and "no checkpoint" in nothing.stderr
    assert not (tmp_path / "nothing").exists()


def test_divergence_ends_with_3_and_leaves_no_bad_checkpoint(tmp_path, main):
    steep = ("--config.steps=40", "--config.optimizer.learning_rate=1e38", "--config.optimizer.warmup_steps=0")
    run = main(*SMALL, f"--workdir={tmp_path}", *steep)
    assert run.returncode == 3 and "10 updates in a row" in run.stderr, run.stderr
    assert files.read_json(tmp_path / "status.json")["state"] == "failed"
    for step in (path.name for path in (tmp_path / "checkpoints").iterdir()):
        assert int(step) < 10


def test_two_processes_train_as_one(tmp_path, main, monkeypatch):
    address = f"127.0.0.1:{peers.free_port()}"
    together = (*SMALL, f"--workdir={tmp_path}/two", f"--coordinator={address}", "--processes=2")
    pair = [start(*together, f"--process={index}", JAX_NUM_CPU_DEVICES="2") for index in range(2)]
    outputs = [child.communicate(timeout=180) for child in pair]
    assert [child.returncode for child in pair] == [0, 0], outputs
    monkeypatch.setattr(sharding, "make_mesh", partial(sharding.make_mesh, devices=jax.devices()[:4]))
    alone = main(*SMALL, f"--workdir={tmp_path}/one")
    assert alone.returncode == 0, alone.stderr
    two, one = (files.read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    assert [record["step"] for record in two] == [record["step"] for record in one]
    for a, b in zip(two, one, strict=True):
        for name in ("generator/nll", "generator/grad_norm", "valid/nll"):
            if name in a:
                np.testing.assert_allclose(a[name], b[name], rtol=2e-5, err_msg=f"{name} at step {a['step']}")


def test_prepare_encodes_what_the_run_will_read(tmp_path, capsys, monkeypatch):
    (tmp_path / "text.txt").write_text("\n".join(f"line {number} of some text" for number in range(200)))
    monkeypatch.chdir(ROOT)
    text = (f"--config.data.name=text:{tmp_path}/text.txt", "--config.data.text.unit=line")
    code = prepare.main(["prepare", "--config=configs/surnames_likelihood.py", *text])
    out = capsys.readouterr().out
    assert code == 0 and "train: " in out and "documents" in out


def test_an_unprepared_set_names_the_command_within_seconds(tmp_path, main, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    started = time.monotonic()
    run = main(*SMALL, f"--workdir={tmp_path}/run", "--config.data.name=tfds:mnist")
    assert run.returncode == 4 and "python -m launch.prepare" in run.stderr and time.monotonic() - started < 15


def test_a_batch_that_the_devices_cannot_share_is_refused_before_compiling(tmp_path):
    run = launch(*SMALL, f"--workdir={tmp_path}/run", JAX_NUM_CPU_DEVICES="3")
    assert run.returncode == 2 and "nearest that does is 15" in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "run").exists()
