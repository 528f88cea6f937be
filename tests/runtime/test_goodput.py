"""Where a run's seconds go, and what takes too long."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import metrics, process, train
from gentrain.errors import Stopped
from gentrain.runtime.goodput import Phases
from tests.helpers import ROOT, StopAt, environment


def test_every_second_is_counted_once_where_it_was_spent(tmp_path):
    began = time.monotonic()
    with Phases(tmp_path / "goodput.json") as phases:
        time.sleep(0.2)
        with phases.during("train"):
            time.sleep(0.3)
            with phases.during("save"):
                time.sleep(0.1)
        with phases.during("evaluate"):
            jax.block_until_ready(jax.jit(lambda x: jnp.sin(x) @ x + len(tmp_path.parts))(jnp.ones((7, 7))))
    wall, found = time.monotonic() - began, metrics.read_json(tmp_path / "goodput.json")
    seconds = found["seconds"]
    assert seconds["start"] >= 0.2 and seconds["train"] >= 0.3 and seconds["save"] >= 0.1
    assert seconds["compile"] > 0  # and neither is in what is around it too:
    assert abs(sum(seconds.values()) - wall) < 0.01 * wall and abs(found["wall"] - wall) < 0.01 * wall
    assert np.isclose(found["goodput"], seconds["train"] / found["wall"], atol=1e-3)


def test_what_is_trained_again_was_lost(tmp_path):
    path = tmp_path / "goodput.json"

    def trained(phases, seconds):
        phases.seconds["train"] += seconds

    with Phases(path) as phases:
        trained(phases, 10)
        phases.saved(10)
        trained(phases, 5)
        phases.saved(15)
        trained(phases, 3)  # and then it was killed
    with Phases(path) as phases:
        phases.restored(10)  # the checkpoint of step 15 is damaged
        assert np.isclose(phases.seconds["train"], 10, atol=0.1) and np.isclose(phases.seconds["lost"], 8, atol=0.1)
        trained(phases, 5)
        phases.saved(15)
    with Phases(path) as phases:
        phases.restored(15)
        assert np.isclose(phases.seconds["train"], 15, atol=0.1) and np.isclose(phases.seconds["lost"], 8, atol=0.1)
    assert json.loads(path.read_text())["starts"] == 3


SLOW = """
import sys, time
from gentrain import phases
phases.SLOWER = 4
with phases.Phases(None, 1.0) as watched:
    for seconds in map(float, sys.argv[1:]):
        with watched.during("train"):
            time.sleep(seconds)
    with watched.during("evaluate"):
        time.sleep(2)
"""


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (("3", "0.1", "0.2"), 0),  # the first compiles, and so does the first evaluation
        (("0", "1", "3"), 0),  # not four times the longest before
        (("3", "0.1", "30"), 42),
    ],
)
def test_only_what_takes_far_longer_than_before_is_stuck(seconds, code):
    run = subprocess.run(
        [sys.executable, "-c", SLOW, *seconds], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert run.returncode == code, run.stderr
    assert ("train took over 1 s" in run.stderr) == (code == 42)


@pytest.fixture
def run_config(config):
    config.steps, config.evaluate.evaluators, config.log.every_steps = 6, ("likelihood",), 2
    config.evaluate.batches, config.checkpoint.every_steps, config.log.tensorboard = 1, 3, False
    return config


def test_a_run_keeps_its_ledger_across_starts_and_traces_the_steps_it_is_asked_for(run_config, tmp_path):
    run_config.log.profile = (4, 6)
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(4))
    assert not (tmp_path / "profile").exists()
    first = metrics.read_json(tmp_path / "goodput.json")
    train.train(run_config, tmp_path, StopAt())
    second = metrics.read_json(tmp_path / "goodput.json")
    assert (first["starts"], second["starts"]) == (1, 2) and second["wall"] > first["wall"]
    for kind in ("train", "evaluate", "save", "restore"):
        assert second["seconds"][kind] > first["seconds"][kind] > 0, kind
    assert second["seconds"]["lost"] == 0
    assert abs(sum(second["seconds"].values()) - second["wall"]) < 0.01 * second["wall"]
    assert any(path.suffix == ".pb" for path in (tmp_path / "profile").rglob("*"))
    told = dict(re.findall("seconds of ([a-z]+)</td><td class=number>([^<]+)", (tmp_path / "report.html").read_text()))
    for kind in ("train", "evaluate", "save"):
        assert float(told[kind]) == pytest.approx(second["seconds"][kind], rel=1e-3)


def test_no_more_than_one_step_runs_ahead(monkeypatch):
    waited = []
    monkeypatch.setattr(metrics.jax, "block_until_ready", waited.append)
    assert list(metrics.paced("abc")) == ["a", "b", "c"] and waited == [None, "a", "b"]
    meter = metrics.Meter("generator", 1)
    waited.clear()
    for step in range(3):
        meter.push({"step": step})
    assert waited == [[], [{"step": 0}], [{"step": 1}]]


SUPERVISE = """
import sys
from gentrain import process
sys.exit(supervise.supervise([[sys.executable, "-c", child] for child in sys.argv[1:]]))
"""


@pytest.mark.parametrize(
    ("children", "code"),
    [
        (("pass", "pass"), 0),
        (("import os; os.abort()", "pass"), 42),  # as JAX ends a process that lost its peers
        (("import sys; sys.exit(42)", "import sys; sys.exit(4)"), 4),  # what is wrong comes before what followed
        (("import os; os.kill(os.getpid(), 9)", "import time; time.sleep(60)"), 42),
        (("import time; time.sleep(60)", "import os; os.kill(os.getpid(), 9)"), 42),
    ],
)
def test_a_supervisor_says_what_ended_the_run(children, code, monkeypatch):
    quick = SUPERVISE.replace("sys.exit(", "process.PATIENCE = 1; sys.exit(")
    run = subprocess.run(
        [sys.executable, "-c", quick, *children], cwd=ROOT, env=environment(), capture_output=True, timeout=30
    )
    assert run.returncode == code, run.stderr


def test_children_do_not_outlive_a_supervisor_that_is_killed():
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, child], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_processes_that_found_something_else_are_named(monkeypatch):
    from jax.experimental import multihost_utils

    def gathered(own):
        other = own.copy()
        other[1] += 1
        return np.stack([own, own, other])

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    with pytest.raises(process.ConfigError, match=r"process 0: config of process 2; start"):
        peers.same_everywhere({"code": "a", "config": "b"})
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda own: np.stack([own] * 3))
    peers.same_everywhere({"code": "a", "config": "b"})


def test_an_error_of_ones_own_is_no_lost_peer():
    lost = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    assert peers.lost_peer(lost).exit_code == 42
    assert peers.lost_peer(ValueError("UNKNOWN: Gloo all-reduce failed: closed by peer")).exit_code == 42
    try:
        raise process.ConfigError("not saved") from jax.errors.JaxRuntimeError("INTERNAL: x: UNAVAILABLE: Task 1")
    except process.ConfigError as wrapped:
        assert peers.lost_peer(wrapped).exit_code == 42
    assert peers.lost_peer(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")) is None
    assert peers.lost_peer(ValueError("Gloo")) is None
