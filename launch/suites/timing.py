"""Contenders of a work take turns, so that what else the machine does meets all of them; what is told are medians."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from launch import huge_pages
from launch.suites.works import TENSORFLOW, Work

TURNS = 7
TURN = 400  # ms that a turn should take at least
MEASURED = ("wall_ms", "cpu_ms", "faults")


@dataclass
class Contender:
    """A process that does a work when it is told to, and what was measured of it."""

    name: str
    process: subprocess.Popen
    beforehand: dict[str, Any]
    turns: list[dict[str, float]] = field(default_factory=list)

    def take_turn(self, count: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return read_line(self.process)

    def row(self) -> dict[str, Any]:
        """All that is known of it, measurements as medians over the turns."""
        medians = {name: median(turn[name] for turn in self.turns) for name in MEASURED}
        return {"contender": self.name, **self.beforehand, **medians}


def read_line(process: subprocess.Popen) -> dict[str, Any]:
    """What a contender says next. Raises RuntimeError where it has ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a contender ended with {process.wait()}: {process.args!r}")
    return json.loads(line)


def start(name: str, work: Work, cores: Sequence[int], devices: int, tensorflow: str) -> Contender:
    """A contender that is ready, or says what it misses. All get the same allocator."""
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        huge_pages.VARIABLE: huge_pages.SETTING,
        "TRANSFORMERS_VERBOSITY": "error",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    python = tensorflow if name in TENSORFLOW else sys.executable
    command = [python, "-m", "launch.suites.contender", name, json.dumps(work), ",".join(map(str, cores))]
    process = subprocess.Popen(
        command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return Contender(name, process, read_line(process))


def race(
    names: Sequence[str], work: Work, cores: Sequence[int], devices: int = 1, tensorflow: str = sys.executable
) -> list[dict[str, Any]]:
    """A row for each contender, in turns; of one that is not installed, what it misses.

    devices: simulated ones. tensorflow: the interpreter of the peers that need TensorFlow.
    """
    contenders = [start(name, work, cores, devices, tensorflow) for name in names]
    installed = [contender for contender in contenders if "missing" not in contender.beforehand]
    counts = {each.name: max(1, round(TURN / each.take_turn(1)["wall_ms"])) for each in installed}
    for _ in range(TURNS):
        for contender in installed:
            contender.turns.append(contender.take_turn(counts[contender.name]))
    for contender in contenders:
        contender.process.communicate()
    return [each.row() if each.turns else {"contender": each.name, **each.beforehand} for each in contenders]
