"""Where a run's seconds go, and what takes too long."""

import json
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import files, train
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
    wall, ledger = time.monotonic() - began, files.read_json(tmp_path / "goodput.json")
    seconds = ledger["seconds"]
    assert seconds["start"] >= 0.2 and seconds["train"] >= 0.3 and seconds["save"] >= 0.1
    assert seconds["compile"] > 0  # and neither is in what is around it too:
    writing = 0.05  # of the ledger itself, which reaches the disk before the block ends
    assert abs(sum(seconds.values()) - wall) < writing and abs(ledger["wall"] - wall) < writing
    assert np.isclose(ledger["goodput"], seconds["train"] / ledger["wall"], atol=1e-3)


@pytest.mark.parametrize("damage", ["", "[]", '{"seconds": null}', '{"seconds": {"train": "long"}}'])
def test_a_damaged_ledger_is_begun_anew(tmp_path, damage):
    path = tmp_path / "goodput.json"
    path.write_text(damage)
    with pytest.warns(UserWarning, match="goodput.json is damaged"), Phases(path) as phases:
        phases.saved(3)
    again = Phases(path)
    assert again.starts == 2 and again.seconds["lost"] == 0 and list(again.trained_at) == [3]
    path.write_text(path.read_text().replace('"3"', '"three"'))
    with pytest.warns(UserWarning, match="goodput.json is damaged"):
        assert Phases(path).starts == 1


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
from gentrain.runtime import goodput
goodput.SLOWER = 4
with goodput.Phases(None, 1.0) as watched:
    for seconds in map(float, sys.argv[1:]):
        with watched.during("train"):
            time.sleep(seconds)
    with watched.during("evaluate"):
        time.sleep(2)
"""


SLOW_RUNS = {
    ("3", "0.1", "0.2"): 0,  # the first compiles, and so does the first evaluation
    ("0", "1", "3"): 0,  # not four times the longest before
    ("3", "0.1", "30"): 42,
}


def test_only_what_takes_far_longer_than_before_is_stuck():
    def start(seconds):
        command = [sys.executable, "-c", SLOW, *seconds]
        return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)

    children = {seconds: start(seconds) for seconds in SLOW_RUNS}  # at the same time: all they do is sleep
    for seconds, code in SLOW_RUNS.items():
        errors = children[seconds].communicate(timeout=60)[1]
        assert children[seconds].returncode == code, errors
        assert ("train took over 1 s" in errors) == (code == 42)


@pytest.fixture
def run_config(config, run_on_one_device):
    config.steps, config.evaluate.evaluators, config.log.every_steps = 6, ("likelihood",), 2
    config.evaluate.batches, config.checkpoint.every_steps, config.log.loggers = 1, 3, ()
    return config


def test_a_run_keeps_its_ledger_across_starts_and_traces_the_steps_it_is_asked_for(run_config, tmp_path):
    run_config.log.profile = (4, 6)
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(4))
    assert not (tmp_path / "profile").exists()
    first = files.read_json(tmp_path / "goodput.json")
    train.train(run_config, tmp_path, StopAt())
    second = files.read_json(tmp_path / "goodput.json")
    assert (first["starts"], second["starts"]) == (1, 2) and second["wall"] > first["wall"]
    for kind in ("train", "evaluate", "save", "restore"):
        assert second["seconds"][kind] > first["seconds"][kind] > 0, kind
    assert second["seconds"]["lost"] == 0
    assert abs(sum(second["seconds"].values()) - second["wall"]) < 0.01 * second["wall"]
    assert any(path.suffix == ".pb" for path in (tmp_path / "profile").rglob("*"))
    page = (tmp_path / "report.html").read_text()
    reported = dict(re.findall('<td data-label="([a-z]+)">([^<]+)', page))
    for kind in ("train", "evaluate", "save"):
        assert float(reported[kind]) == pytest.approx(second["seconds"][kind], rel=1e-3)
