"""What several test files need."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gentrain.objectives.base import Objective
from gentrain.runtime.signals import Stop

ROOT = Path(__file__).parents[1]


class StopAt(Stop):
    """Asks to stop after a step, as a signal would."""

    def __init__(self, step=None):
        super().__init__()
        self.step = step

    def at(self, step):
        return step == self.step


def ragged_batch(spec, rows: int, seed: int) -> dict[str, np.ndarray]:
    """Random documents of very different lengths, some of them packed two to a row."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, spec.vocab - 1, (rows, spec.length)).astype(np.int32)
    lengths = random.integers(1, spec.length + 1, rows)
    mask = np.arange(spec.length)[None, :] < lengths[:, None]
    if spec.end is not None:
        tokens[np.arange(rows), lengths - 1] = spec.end
        tokens[np.arange(rows), lengths // 2] = spec.end
    return {"tokens": np.where(mask, tokens, 0), "mask": mask, "row": np.arange(rows, dtype=np.int32)}


def objective_of(model: Any) -> Objective:
    """An objective that has a model and nothing else: all that most evaluators read of one."""
    objective = Objective()
    objective.model = model
    return objective


def assert_trees_close(one, other, rtol=0.0, atol=0.0):
    """The same structure, and every leaf within the tolerance; equal bits where both are 0."""
    left, right = jax.tree_util.tree_leaves_with_path(one), jax.tree_util.tree_leaves_with_path(other)
    assert [path for path, _ in left] == [path for path, _ in right]
    for (path, a), (_, b) in zip(left, right, strict=True):
        np.testing.assert_allclose(
            np.asarray(a), np.asarray(b), rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path)
        )


def environment(**extra) -> dict[str, str]:
    """The environment of a child process: one device, unless said otherwise."""
    return {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"} | extra


def launch(*arguments: str, timeout: float = 120, **extra) -> subprocess.CompletedProcess:
    """python -m launch, as a user runs it."""
    command = [sys.executable, "-m", "launch", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(**extra), capture_output=True, text=True, timeout=timeout)
