"""Measures what this machine and gentrain promise of a run that is interrupted: python -m launch.benchmark reliability

A small run is started, killed, started again, and started as two processes of which one is killed, and one suspended.
Each line has what was measured and what it should be at most.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gentrain import files
from gentrain.errors import LostPeer, Stopped

STEPS, SAVE_EVERY = 2000, 50
CONFIG = (
    "--config=configs/surnames_likelihood.py", "--config.model.width=64", "--config.log.every_steps=10",
    f"--config.checkpoint.every_steps={SAVE_EVERY}", "--config.evaluate.every_steps=1000000",
    "--config.evaluate.evaluators=('likelihood',)", "--config.evaluate.batches=2", "--config.log.loggers=()",
)  # fmt: skip
PATIENCE = 120  # seconds that anything here may take


class Level(NamedTuple):
    """A service level. most: what it should be at most."""

    name: str
    measured: float
    most: float
    unit: str


def main() -> int:
    """Prints the table; returns 1 where a level is missed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for level in measure(Path(folder)):
            holds = level.measured <= level.most
            missed += not holds
            verdict = "" if holds else "  MISSED"
            print(f"{level.name:<58} {level.measured:9.3g} {level.unit:<5} at most {level.most:g}{verdict}", flush=True)
    return 1 if missed else 0


def measure(folder: Path) -> Iterator[Level]:
    """Every level, one after another."""
    whole, killed = folder / "whole", folder / "killed"
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    began = time.monotonic()
    cold = Run(whole, STEPS, environment)
    cold.wait_for_line("step 10/")
    yield Level("cold start to the tenth step", time.monotonic() - began, 20, "s")
    cold.end()
    ledger = files.read_json(whole / "goodput.json")
    seconds, wall = ledger["seconds"], ledger["wall"]
    stall = seconds["save"] / (STEPS / SAVE_EVERY)
    yield Level("a save holds training up, of three minutes", stall / 180, 0.01, "share")
    yield Level("seconds of the ledger less its wall time", abs(sum(seconds.values()) - wall) / wall, 0.01, "share")

    first = Run(killed, STEPS, environment)
    first.wait_for_line("step 300/")
    first.kill()
    began = time.monotonic()
    again = Run(killed, STEPS, environment)
    again.wait_for_line("resuming at step")
    restored = time.monotonic() - began
    again.wait_for_line(f"/{STEPS:,}: ")
    yield Level("kill -9 to the first line of the log after the resume", time.monotonic() - began, 15, "s")
    yield Level("of which until the state is restored", restored, 12, "s")
    began = time.monotonic()
    again.process.send_signal(signal.SIGTERM)
    again.end(Stopped.exit_code)
    yield Level("SIGTERM to a saved state and exit 42", time.monotonic() - began, 10, "s")

    yield Level("a peer is killed, the run ends", time_of_loss(folder / "pair", environment, signal.SIGKILL), 30, "s")
    yield Level(
        "a peer is suspended, the run ends", time_of_loss(folder / "stuck", environment, signal.SIGSTOP), 90, "s"
    )


def time_of_loss(workdir: Path, environment: dict[str, str], number: signal.Signals) -> float:
    """Seconds until a run of two processes ends, from when one of them gets the signal."""
    pair = Run(workdir, 1_000_000, environment, "--local_processes=2", "--config.training.stuck_seconds=30")
    pair.wait_for_line("step 20/")
    member = pair.children()[-1]
    began = time.monotonic()
    os.kill(member, number)
    pair.end(LostPeer.exit_code)
    return time.monotonic() - began


class Run:
    """A launched run, and what it says."""

    def __init__(self, workdir: Path, steps: int, environment: dict[str, str], *flags: str) -> None:
        command = [sys.executable, "-m", "launch", *CONFIG, f"--workdir={workdir}", f"--config.steps={steps}", *flags]
        self.output = workdir.with_suffix(".txt")
        with self.output.open("w") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

    def wait_for_line(self, text: str) -> None:
        """Returns once the run has said this. Raises RuntimeError where it ends first, or takes too long."""
        self.wait_until(lambda: text in self.output.read_text(), text)

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"the run never said {what!r}:\n{self.output.read_text()[-2000:]}")
            time.sleep(0.02)

    def children(self) -> Sequence[int]:
        """The processes that it started."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def end(self, code: int = 0) -> None:
        """Returns once the run has ended with this exit code. Raises RuntimeError where it ends with another."""
        if (ended := self.process.wait(PATIENCE)) != code:
            raise RuntimeError(f"exit code {ended}, expected {code}:\n{self.output.read_text()[-2000:]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
