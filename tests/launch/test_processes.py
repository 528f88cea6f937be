"""One run of several processes: stopped as one, gone on with on fewer, ended when one of them is lost."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from gentrain import files, sharding, train
from gentrain.errors import Stopped
from gentrain.runtime.peers import free_port
from launch import cli
from tests.helpers import ROOT, StopAt, environment, launch
from tests.published.helpers import make_folder

SMALL = (
    *("--config=configs/surnames_likelihood.py", "--config.model.width=16", "--config.data.batch_size=16"),
    *("--config.data.length=8", "--config.evaluate.batches=2", "--config.evaluate.every_steps=1000"),
    *("--config.evaluate.evaluators=('likelihood',)", "--config.log.every_steps=1", "--config.log.loggers=()"),
)
ASLEEP = """
import sys, time
from gentrain.datasets import rows
read = rows.Shuffled.batch
rows.Shuffled.batch = lambda self, step: time.sleep(3600) if step == 6 else read(self, step)
from launch.__main__ import main
main(sys.argv)
"""


def start(*arguments: str, command=("-m", "launch"), **extra: str) -> subprocess.Popen:
    """The launcher (or another command of Python's) with these arguments, in a group that can be killed."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        [sys.executable, *command, *arguments], cwd=ROOT, env=environment(**extra), start_new_session=True, **pipes
    )


def step_of(workdir: Path) -> int:
    return files.read_json(workdir / "status.json").get("step") or 0


def wait_for(workdir: Path, step: int, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 180
    while step_of(workdir) < step:
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < deadline, f"step {step} never came"
        time.sleep(0.1)


def children(parent: subprocess.Popen) -> list[int]:
    """The processes that a supervisor started, in their order in the run."""
    return list(map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()))


def ended(child: subprocess.Popen, timeout: float) -> tuple[int, str]:
    """Exit code and output; whatever still runs at the timeout is killed."""
    try:
        output = child.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        pytest.fail(f"still running after {timeout} s: {child.communicate()[0]}")
    return child.returncode, output


def test_a_run_of_one_goes_on_as_four_as_two_and_as_one_with_the_same_data(tmp_path, main, monkeypatch, no_mesh):
    config = (*SMALL, "--config.steps=240", "--config.optimizer.warmup_steps=2", "--config.model.dropout=0.1")
    with monkeypatch.context() as patch:
        patch.setattr(sharding, "make_mesh", partial(sharding.make_mesh, devices=jax.devices()[:2]))
        straight = main(*config, f"--workdir={tmp_path}/straight")
    assert straight.returncode == 0, straight.stderr
    workdir = tmp_path / "cut"
    with pytest.raises(Stopped, match="is saved"):
        train.train(cli.parse(["launch", *config]).config, workdir, StopAt(5))
    stopped_at = [step_of(workdir)]
    for layout in (("--local_processes=4",), ("--local_processes=2", "--config.mesh.fsdp=2", "--config.mesh.data=1")):
        child = start(*config, *layout, f"--workdir={workdir}")
        wait_for(workdir, step_of(workdir) + 5, child)
        child.send_signal(signal.SIGTERM)
        code, output = ended(child, 60)
        assert code == 42 and "is saved" in output, output
        stopped_at.append(step_of(workdir))
    assert 0 < stopped_at[0] < stopped_at[1] < stopped_at[2] < 240
    alone = main(*config, "--config.training.microbatches=4", f"--workdir={workdir}")
    assert alone.returncode == 0 and f"resuming at step {stopped_at[2]}" in alone.stdout, alone.stderr
    one, other = (files.read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("straight", "cut"))
    assert [record["step"] for record in one] == [record["step"] for record in other]
    for a, b in zip(one, other, strict=True):
        for name in ("generator/nll", "generator/learning_rate", "valid/nll"):
            if name in a:
                np.testing.assert_allclose(a[name], b[name], rtol=2e-4, err_msg=f"{name} at step {a['step']}")
    goodput = files.read_json(workdir / "goodput.json")
    assert goodput["starts"] == 4 and goodput["seconds"]["lost"] == 0


def test_two_processes_start_from_the_published_model_that_one_starts_from(tmp_path):
    """Each reads the parts that its own devices hold, and the first loss is the same."""
    folder = make_folder(tmp_path / "model")
    flags = [*SMALL, f"--config.init_from=hf:{folder}", "--config.steps=2", "--config.optimizer.warmup_steps=0"]
    flags = [flag for flag in flags if "model.width" not in flag]
    losses = {}
    for name, layout in (("one", ()), ("two", ("--local_processes=2", "--config.mesh.fsdp=2", "--config.mesh.data=1"))):
        run = launch(*flags, *layout, f"--workdir={tmp_path / name}")
        assert run.returncode == 0 and "starting from the parameters of hf:" in run.stdout, run.stdout + run.stderr
        losses[name] = [one.get("generator/nll") for one in files.read_jsonl(tmp_path / name / "metrics.jsonl")][1:]
    assert losses["one"] == pytest.approx(losses["two"], rel=1e-4)


@pytest.mark.parametrize(
    ("number", "sent"),
    [
        (1, signal.SIGKILL),
        pytest.param(0, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGSTOP, marks=pytest.mark.slow),
        pytest.param(0, signal.SIGSTOP, marks=pytest.mark.slow),
    ],
)
def test_a_dead_process_ends_the_others_with_42_and_the_same_command_goes_on(tmp_path, number, sent):
    config = (*SMALL, "--config.steps=100000", "--config.checkpoint.every_steps=5", f"--workdir={tmp_path}")
    child = start(*config, "--local_processes=2")
    wait_for(tmp_path, 10, child)
    while not any(path.name.isdecimal() for path in (tmp_path / "checkpoints").iterdir()):  # written in the background
        assert child.poll() is None
        time.sleep(0.01)
    began = time.monotonic()
    os.kill(children(child)[number], sent)
    code, output = ended(child, 90)
    assert code == 42, output
    assert time.monotonic() - began < 45  # a heartbeat of 10 s, 20 s for the rest to end by themselves, a busy machine
    again = start(*config, "--local_processes=2")
    wait_for(tmp_path, step_of(tmp_path) + 1, again)
    again.send_signal(signal.SIGTERM)
    code, output = ended(again, 60)
    assert code == 42 and "resuming at step" in output, output
    goodput = files.read_json(tmp_path / "goodput.json")
    assert abs(sum(goodput["seconds"].values()) - goodput["wall"]) < 0.01 * goodput["wall"]


@pytest.mark.slow
def test_a_process_that_hangs_ends_all_with_42_and_shows_where(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    config = (*SMALL, "--config.training.stuck_seconds=6", f"--coordinator={address}", "--processes=2")
    both = [
        start(
            *(*config, f"--process={index}", f"--workdir={tmp_path}", "--config.data.prefetch=0"),
            command=("-m", "launch") if index == 0 else ("-c", ASLEEP),
            GENTRAIN_SUPERVISED="1",
        )
        for index in range(2)
    ]
    ends = [ended(child, 120) for child in both]
    # Whose watchdog is first ends with 42, and so does the other, or JAX aborts it, of which a supervisor makes 42.
    codes = {code for code, _ in ends}
    assert 42 in codes <= {42, -signal.SIGABRT}, ends
    assert any("train took over 6 s" in output and "most recent call first" in output for _, output in ends), ends


def test_processes_with_another_config_are_named_before_anything_is_trained(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    both = [
        start(
            *(*SMALL, f"--coordinator={address}", "--processes=2", f"--process={index}", f"--workdir={tmp_path}/run"),
            f"--config.seed={index}",
        )
        for index in range(2)
    ]
    for code, output in (ended(child, 120) for child in both):
        assert code == 2 and "config of process 1" in output, output
    assert not (tmp_path / "run").exists()


ALONE = """
import sys
from gentrain.errors import LostPeer
from gentrain.runtime import peers
try:
    peers.join(sys.argv[1], 2, 1, timeout=3)
except LostPeer as error:
    sys.exit(error.exit_code)
"""


def test_a_coordinator_that_nobody_answers_at_ends_with_42():
    supervisor = "import sys; from gentrain.runtime import supervise; sys.exit(supervise.supervise([sys.argv[1:]]))"
    child = start(sys.executable, "-c", ALONE, f"127.0.0.1:{free_port()}", command=("-c", supervisor))
    code, output = ended(child, 60)
    assert code == 42, output


def test_a_config_error_is_told_once_and_before_any_process_starts(tmp_path):
    run = launch(*SMALL, "--local_processes=2", "--config.steps=0", f"--workdir={tmp_path}")
    assert run.returncode == 2 and run.stderr.count("ConfigError") == 1
