"""Every shipped config is sound, and a dry run says what it would take of a device."""

import math
import re

import jax
import pytest

from gentrain import memory, program, sharding
from launch import cli, dry_run
from launch.list import constant
from tests.helpers import ROOT, launch

LARGE = {"lm1b_likelihood": 256, "scale": 256}  # devices, more than the tests have
SMALL = [
    f"{path.stem}:{variant}".rstrip(":")
    for path in sorted((ROOT / "configs").glob("*.py"))
    if path.stem not in ("base", "__init__", *LARGE)
    for variant in constant(path, "VARIANTS") or ("",)
]


def assert_sizes(text: str) -> None:
    assert "parameters" in text and "MiB" in text and "mesh" in text


@pytest.mark.parametrize("name", SMALL)
def test_every_config_builds_and_traces_one_update(name, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    stem, _, variant = name.partition(":")
    config = cli.parse(["launch", f"--config=configs/{stem}.py" + (f":{variant}" if variant else "")]).config
    devices = jax.devices()[: dry_run.devices_of(config)]
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, config.training.microbatches, devices)
    built = dry_run.describe(config, mesh)
    assert_sizes(capsys.readouterr().out)
    state, sums = jax.eval_shape(built.update, built.state, built.batch)
    assert jax.tree.structure(state) == jax.tree.structure(built.state)
    assert {f"{player}/loss" for player in built.objective.players} <= sums.keys()


@pytest.mark.parametrize("name", LARGE)
def test_a_dry_run_simulates_the_devices_that_the_config_asks_for(name):
    run = launch(f"--config=configs/{name}.py", "--dry_run")
    assert run.returncode == 0, run.stderr
    assert_sizes(run.stdout)
    (axes,) = re.findall("^mesh .*", run.stdout, re.MULTILINE)
    assert math.prod(map(int, re.findall(r"=(\d+)", axes))) == LARGE[name]


def test_a_dry_run_counts_shards_and_microbatches(config, spec, monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 1)
    config.data.batch_size = 64
    one = memory.estimate(config, program.build(config, spec))
    config.training.microbatches = 4
    four = memory.estimate(config, program.build(config, spec))
    kept = "kept for the backward pass"
    assert four["gradients"] == 2 * one["gradients"] == 2 * one["parameters"] and 0 < four[kept] < one[kept] / 2
    config.mesh.update({"data": 1, "fsdp": 8})
    assert memory.estimate(config, program.build(config, spec))["parameters"] < one["parameters"] / 4
