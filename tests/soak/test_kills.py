"""Runs that are killed again and again end in the bits of one that never was.

A few kills are in the ordinary suite. All of them, by phase, for every objective on text and on images, and of members
of a run of two processes: `python -m pytest -m soak tests/soak`.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gentrain.runtime.checkpoint import Checkpoints
from tests.helpers import ROOT

TEXT = ("--config.data.name=surnames", "--config.data.length=12")
IMAGES = (
    "--config.data.name=digits",
    "--config.data.levels=4",
)
GAME = ("--config.objective.name=adversarial", "--config.adversarial.critic_steps=3", "--config.critic.width=8")
CELLS = {
    "likelihood, text": TEXT,
    "likelihood, images": IMAGES,
    "scheduled sampling, text": (*TEXT, "--config.objective.name=scheduled_sampling"),
    "scheduled sampling, images": (*IMAGES, "--config.objective.name=scheduled_sampling"),
    "adversarial, text": (*TEXT, *GAME),
    "adversarial, images": (
        *GAME,
        "--config.data.name=digits",
        "--config.model.name=dcgan",
        "--config.critic.name=dcgan",
    ),
    "cooperative, text": (*TEXT, "--config.objective.name=cooperative"),
    "cooperative, images": (*IMAGES, "--config.objective.name=cooperative"),
}
SMALL = (
    f"--config={ROOT}/configs/base.py", "--config.model.width=8", "--config.data.batch_size=8",
    "--config.training.ema_decay=0.9", "--config.checkpoint.every_steps=5", "--config.log.every_steps=5",
    "--config.log.loggers=()", "--config.evaluate.evaluators=()", "--config.evaluate.every_steps=100000",
)  # fmt: skip
PHASES = ("save", "step", "delete", "restore", "start")


def run_launcher(arguments: tuple[str, ...], output: str) -> None:
    """In a process of its own: the launcher, with what it says in a file."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    from launch.__main__ import main

    sys.exit(main(["launch", *arguments]))


@pytest.fixture(scope="module")
def start() -> Callable[[tuple[str, ...], Path], multiprocessing.Process]:
    """start(arguments, output) -> a process that is running; all are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gentrain.train", "launch.__main__"])
    before = os.environ["JAX_NUM_CPU_DEVICES"]
    os.environ["JAX_NUM_CPU_DEVICES"] = "1"

    def begin(arguments, output):
        process = context.Process(target=run_launcher, args=(arguments, str(output)), daemon=True)
        process.start()
        return process

    yield begin
    os.environ["JAX_NUM_CPU_DEVICES"] = before


def committed(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []


def wait_for(phase: str, workdir: Path, output: Path, process: multiprocessing.Process) -> None:
    """Returns in the midst of a phase of a running process, or once it has ended."""
    seen, deadline = set(committed(workdir)), time.monotonic() + 60
    pause = random.uniform(0, 1.5)
    begun = time.monotonic()
    while process.is_alive() and time.monotonic() < deadline:
        said = output.read_text(errors="replace") if output.exists() else ""
        steps = set(committed(workdir))
        reached = {
            "start": time.monotonic() - begun > pause,
            "restore": "resuming at step" in said or "parameters on" in said,
            "step": "step " in said.partition("parameters on")[2] and "/" in said.rpartition("step ")[2],
            "save": any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")),
            "delete": bool(seen - steps),
        }
        if reached[phase]:
            return time.sleep(random.uniform(0, 0.02))
        seen |= steps
        time.sleep(0.001)


def sums_of_final_state(workdir: Path) -> dict[str, str]:
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints._description(checkpoints.require(None))["sums"]


def run_to_the_end(start, arguments, output: Path) -> None:
    process = start(arguments, output)
    process.join(300)
    assert process.exitcode == 0, output.read_text()


def any_member(process: multiprocessing.Process) -> int:
    """One of the processes that a launcher of several has started, or the launcher before it has."""
    members = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(random.choice(members)) if members else process.pid


def kill_again_and_again(start, tmp_path: Path, cell: str, steps: int, kills: int, flags=(), victim=None) -> None:
    config = (*SMALL, *CELLS[cell], f"--config.steps={steps}", *flags)
    run_to_the_end(start, (*config, f"--workdir={tmp_path / 'whole'}"), tmp_path / "whole.txt")
    workdir, output, done = tmp_path / "killed", tmp_path / "killed.txt", 0
    for number in range(kills):
        before = committed(workdir)
        output.unlink(missing_ok=True)
        process = start((*config, f"--workdir={workdir}"), output)
        wait_for(PHASES[number % len(PHASES)], workdir, output, process)
        if process.is_alive():
            os.kill(victim(process) if victim else process.pid, signal.SIGKILL)
            done += 1
        process.join(90)
        assert not process.is_alive(), "it waits for a member that is gone"
        assert not before or max(committed(workdir)) >= max(before)  # nothing that was saved is lost
    assert done >= kills * 0.8, f"the run was over before it was killed {kills} times: it needs more steps"
    run_to_the_end(start, (*config, f"--workdir={workdir}"), output)
    assert sums_of_final_state(workdir) == sums_of_final_state(tmp_path / "whole")
    assert not list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def test_five_kills_one_in_each_phase(start, tmp_path):
    kill_again_and_again(start, tmp_path, "adversarial, text", steps=120, kills=5)


@pytest.mark.soak
def test_a_hundred_kills(start, tmp_path):
    kill_again_and_again(start, tmp_path, "likelihood, text", steps=4000, kills=100)


@pytest.mark.soak
def test_thirty_kills_of_a_member_of_two_processes(start, tmp_path):
    flags = ("--local_processes=2", "--config.mesh.data=2")
    kill_again_and_again(start, tmp_path, "likelihood, text", 2000, 30, flags, any_member)


@pytest.mark.soak
@pytest.mark.parametrize("cell", CELLS)
def test_kills_of_every_objective_on_text_and_on_images(start, tmp_path, cell):
    kill_again_and_again(start, tmp_path, cell, steps=1500, kills=25)
