"""Ahead-of-time compilation: bytes, traffic and rematerialisations of every shipped config on hundreds of devices.

Slow tests compare the traffic with tests/golden/collectives.json, which `GENTRAIN_GOLDEN=write` makes anew; say in the
commit why it changed.
"""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import jax
import pytest

from configs import base
from gentrain import devices, program, sharding
from launch import aot, hlo
from tests.helpers import ROOT, environment

GOLDEN = ROOT / "tests/golden/collectives.json"
PRESETS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("base", "__init__"))
LAYOUTS = {  # of 8 devices
    "data": {"data": -1},
    "fsdp": {"data": 2, "fsdp": 4},
    "replica": {"replica": 2, "data": 1, "fsdp": 4},
}


def run(*arguments: str, timeout: float = 900) -> subprocess.CompletedProcess:
    """python -m launch.aot, as a user runs it."""
    command = [sys.executable, "-m", "launch.aot", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout)


def assert_split(numbers) -> None:
    """What is compiled takes the bytes of parameters, moments and averages that its shards have, within 1 %, and these
    are split evenly."""
    placed = sum(numbers["arguments"].values())
    assert abs(numbers["host"]["arguments"] - placed) <= 0.01 * placed + sharding.SMALL
    assert placed <= 1.01 * numbers["even"] + sharding.SMALL


def measured(config, spec) -> dict:
    """The part of aot.measure that needs no devices but those of the tests."""
    built, _, host = aot.compile_update(config, spec, jax.devices())
    return {"arguments": aot.argument_bytes(built), "even": aot.even_bytes(built), "host": host}


@pytest.mark.parametrize(
    ("objective", "layout"), [*(("likelihood", layout) for layout in LAYOUTS), ("adversarial", "fsdp")]
)
def test_compiled_arguments_are_the_shards_of_parameters_moments_and_averages(config, spec, objective, layout):
    config.objective.name, config.training.ema_decay, config.model.width = objective, 0.9, 64
    config.mesh.update(LAYOUTS[layout])
    numbers = measured(config, spec)
    assert_split(numbers)
    built = program.build(config, spec)
    shards = config.mesh.fsdp
    small = sum(math.prod(x.shape) for x in jax.tree.leaves(built.state.params) if math.prod(x.shape) < sharding.SMALL)
    # In float32: parameters, two moments and one average.
    state = 4 * 4 * ((sharding.elements(built.state.params) - small) / shards + small)
    assert sum(numbers["arguments"].values()) == pytest.approx(state + numbers["arguments"]["batch"], rel=0.01)


@pytest.mark.parametrize("rules", [(), base.TRANSFORMER_RULES])
def test_parameters_travel_to_the_rows_and_not_the_rows_to_the_parameters(config, spec, rules):
    config.model.name, config.model.width, config.mesh.rules = "transformer", 64, rules
    config.mesh.update({"data": 2, "fsdp": 4} if not rules else {"data": 1, "fsdp": 4, "tensor": 2})
    sent = []
    for config.data.batch_size in (16, 64):
        built, executable, host = aot.compile_update(config, spec, jax.devices())
        rows, _ = hlo.traffic(executable.as_text(), built.mesh.shape)
        sent.append(sum(row.sent for row in rows if "fsdp" in row.axes))
        assert host["rematerialised"] == 0
    assert sent[1] <= 1.1 * sent[0]  # four times the rows
    # Gathered forward and backward, and gradients summed: at most 2 of their bytes each, and a few sums.
    assert sent[1] <= 6 * 4 * sharding.elements(built.state.params) / built.mesh.shape["tensor"]


def test_parameters_are_gathered_once_for_all_tokens_that_are_drawn(config, spec):
    config.objective.name, config.model.name, config.model.width = "adversarial", "transformer", 256
    config.model.transformer.scan_layers, config.model.layers = True, 2
    config.mesh.update({"data": 1, "fsdp": 4, "tensor": 2})
    config.mesh.rules = base.TRANSFORMER_RULES
    sent = []
    for length in (4, 32):
        built, executable, _ = aot.compile_update(config, replace(spec, length=length), jax.devices())
        rows, _ = hlo.traffic(executable.as_text(), built.mesh.shape)
        sent.append(sum(row.sent for row in rows if row.kind == "all-gather" and "fsdp" in row.axes))
    assert sent[1] - sent[0] < 4 * sharding.elements(built.state.params["generator"])


@pytest.mark.usefixtures("no_mesh")
def test_keys_are_brought_together_once_for_all_chunks_of_queries(config, spec):
    config.model.name, config.model.width, config.model.layers = "transformer", 32, 2
    config.mesh.update({"data": 2, "sequence": 4})
    sent = []
    for config.model.transformer.attention_chunk in (2, 8):
        built, executable, _ = aot.compile_update(config, replace(spec, length=64), jax.devices())
        rows, _ = hlo.traffic(executable.as_text(), built.mesh.shape)
        sent.append(sum(row.sent for row in rows if "sequence" in row.axes))
    assert sent[0] <= 1.1 * sent[1]


def test_a_large_array_that_is_copied_to_every_device_is_caught(config, spec):
    config.model.width, config.mesh.rules = 64, (("recurrent|kernel", (None, None)),)
    config.mesh.update(LAYOUTS["fsdp"])
    with pytest.raises(AssertionError):
        assert_split(measured(config, spec))


def test_what_the_compiler_says_is_kept_and_counted(config, spec, monkeypatch, capfd):
    built = program.build(config, spec)

    class Update:
        def lower(self, *shapes):
            os.write(2, b"W spmd_partitioner.cc: [SPMD] Involuntary full rematerialization. The compiler\n" * 3)
            return jax.jit(lambda x: x).lower(0.0)

    monkeypatch.setattr(program, "build", lambda *_: built._replace(update=Update()))
    assert aot.compile_update(config, spec, jax.devices())[2]["rematerialised"] == 3
    assert capfd.readouterr().err == ""


def test_what_has_no_room_is_told_and_does_not_fit(config, spec, monkeypatch, capsys):
    built = program.build(config, spec)

    class Update:
        def lower(self, *shapes):
            return self

        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 20.31G of 15.75G hbm.\nLargest allocations:")

    monkeypatch.setattr(program, "build", lambda *_: built._replace(update=Update()))
    _, executable, chip = aot.compile_update(config, spec, jax.devices())
    assert executable is None
    monkeypatch.setattr(aot, "measure", lambda *_: {**NUMBERS, "chip": chip, "peak": 0, "fits": False})
    assert aot.main(["aot", "--config=configs/surnames_likelihood.py", "--topology=v5e:2x2"]) == 1
    out = capsys.readouterr().out
    assert "for the chip: RESOURCE_EXHAUSTED: Used 20.31G of 15.75G hbm." in out and "Largest" not in out


def test_a_preset_on_256_devices(tmp_path):
    done = run(
        "--config=configs/surnames_likelihood.py",
        "--config.training.mode=shard_map",
        *("--host_devices=256", f"--json={tmp_path}/numbers.json"),
    )
    assert done.returncode == 0, done.stderr
    assert "raised from 128 to divide over the mesh" in done.stdout and "data=256" in done.stdout
    assert "0 involuntary" in done.stdout and "peak       not known" in done.stdout
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["devices"] == {"kind": "cpu", "count": 256} and numbers["batch"]["rows"] == 256
    assert_split(numbers)
    summed = {(row["kind"], row["axes"]): row["sent"] for row in numbers["traffic"]}
    gradients = 2 * 4 * sum(numbers["parameters"].values()) * 255 / 256
    assert summed[("all-reduce", "data")] == pytest.approx(gradients, rel=0.05)  # and a few sums


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--host_devices"),
        (["--host_devices=8", "--topology=v5e:2x2"], "--host_devices"),
        (["--host_devices=many"], "host_devices"),
        (["--host_devices=8", "--config.model.widht=3"], "model.width"),
        (["--host_devices=8", "--nonsense=1"], "nonsense"),
        (["--topology=v5e:2x2"], "pip install -r requirements-aot.txt"),
    ],
)
def test_mistakes_are_one_line_and_2(capsys, monkeypatch, arguments, words):
    monkeypatch.setattr(aot.importlib.util, "find_spec", lambda name: None)
    assert aot.main(["aot", "--config=configs/surnames_likelihood.py", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_mesh_that_the_devices_do_not_make_up_is_a_mistake_too():
    done = run("--config=configs/surnames_likelihood.py", "--host_devices=8", "--config.mesh.data=4")
    assert done.returncode == 2 and "there are 8" in done.stderr and done.stderr.count("\n") == 1


NUMBERS = {
    "devices": {"kind": "TPU v5 lite", "count": 4},
    "mesh": {"replica": 2, "data": 1, "fsdp": 2, "tensor": 1},
    "batch": {"rows": 8, "asked": 8, "tokens": 1000},
    "parameters": {"critic": 2 * 10**9, "generator": 10**9},
    "moves": ["critic", "critic", "generator"],
    "arguments": {"parameters": 2**30},
    "even": 2**30,
    "host": {"seconds": 1.0, "rematerialised": 0, "arguments": 2**30},
    "chip": {"seconds": 2.0, "rematerialised": 0, "arguments": 2**30},
    "traffic": [
        {"kind": "all-gather", "axes": "fsdp", "calls": 3, "sent": 10**9},
        {"kind": "all-reduce", "axes": "fsdp", "calls": 3, "sent": 2 * 10**9},
        {"kind": "all-reduce", "axes": "replica+fsdp", "calls": 1, "sent": 10**9},
    ],
    "unknown_loops": 0,
}


@pytest.mark.parametrize(
    ("kind", "gigabytes"), [("TPU v5", 95), ("TPU v5p", 95), ("TPU v5 lite", 16), ("TPU v4", 32), ("cpu", None)]
)
def test_chips_are_known_by_how_their_names_begin(kind, gigabytes):
    assert devices.look_up(devices.HBM, kind) == (gigabytes and gigabytes * 1e9)


def test_a_step_is_predicted_by_the_slowest_of_its_parts():
    options = aot.make_flags()
    options(["aot", "--ici_gbps=100", "--dcn_gbps=10"])
    compute = 6 * 5e9 * 1000 / (4 * 197e12)  # two moves of the critic and one of the generator
    expected = {"compute": compute, "along fsdp": 0.03, "along replica+fsdp": 0.1, "mfu": compute / 0.1}
    assert aot.predict(NUMBERS, options) == pytest.approx(expected)
    options = aot.make_flags()
    options(["aot"])
    assert aot.predict(NUMBERS, options) == pytest.approx({"compute": compute})


@pytest.mark.parametrize(("peak", "code"), [(13.6e9, 0), (13.7e9, 1)])
def test_the_exit_code_says_whether_it_fits(monkeypatch, capsys, peak, code):
    numbers = {**NUMBERS, "peak": peak, "fits": peak <= aot.ROOM * 16e9, "predicted": {"mfu": 0.5}}
    monkeypatch.setattr(aot, "measure", lambda config, options: numbers)
    assert aot.main(["aot", "--config=configs/surnames_likelihood.py", "--topology=v5e:2x2"]) == code
    out = capsys.readouterr().out
    assert f"{peak / 2**30:.2f} GiB, {peak / 16e9:.1%} of 16 GB: {'does not fit' if code else 'fits'}" in out


@pytest.mark.slow
@pytest.mark.parametrize("devices", [256, 512])
@pytest.mark.parametrize("preset", [*PRESETS, "scale:1b_adversarial", "scale:1b_distillation"])
def test_every_preset_on_hundreds_of_devices(tmp_path, preset, devices):
    path, (file, _, variant) = tmp_path / "numbers.json", preset.partition(":")
    done = run(
        f"--config=configs/{file}.py:{variant}".rstrip(":"),
        f"--host_devices={devices}",
        "--config.mesh.data=-1",
        f"--json={path}",
    )
    assert done.returncode == 0, done.stderr
    numbers = json.loads(path.read_text())
    assert_split(numbers)
    assert numbers["host"]["rematerialised"] == 0
    golden, name = json.loads(GOLDEN.read_text()), f"{preset} on {devices}"
    sums = {f"{row['kind']} {row['axes']}": [row["calls"], row["sent"]] for row in numbers["traffic"]}
    if os.environ.get("GENTRAIN_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(dict(sorted({**golden, name: sums}.items())), indent=1) + "\n")
        golden[name] = sums
    for along in sums.keys() | golden[name].keys():
        for value, budget in zip(sums.get(along, [0, 0]), golden[name].get(along, [0, 0]), strict=True):
            assert abs(value - budget) <= 0.05 * budget, f"{along}: {sums.get(along)}, not {golden[name].get(along)}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "topology"),
    [
        *((f"{size}{objective}", topology) for size, topology in (("1b", "v5e:16x16"), ("7b", "v5p:8x8x8"))
          for objective in ("", "_scheduled_sampling", "_adversarial")),
        ("1b_distillation", "v5p:8x8x4"),
    ],
)  # fmt: skip
def test_large_models_fit_on_chips_that_are_not_here(tmp_path, variant, topology):
    path = tmp_path / "numbers.json"
    done = run(f"--config=configs/scale.py:{variant}", f"--topology={topology}", f"--json={path}")
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = json.loads(path.read_text())
    assert_split(numbers)
    assert numbers["host"]["rematerialised"] == numbers["chip"]["rematerialised"] == 0
