"""The program as its users run it: start, resume, stop, fail, look, on one process and on two."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from gentrain import metrics, process, program, sharding, train
from gentrain.errors import CheckpointError, Diverged, Stopped, WorkdirInUse
from gentrain.runtime.goodput import Phases
from gentrain.update import TrainState
from launch.dry_run import memory
from tests.helpers import ROOT, StopAt, assert_trees_close, environment, launch

SMALL = [
    *(
        "--config=configs/surnames_likelihood.py",
        "--config.steps=6",
        "--config.model.width=16",
        "--config.data.batch_size=16",
    ),
    *("--config.evaluate.batches=2", "--config.evaluate.every_steps=3", "--config.evaluate.ngram_order=2"),
    *("--config.optimizer.warmup_steps=2", "--config.log.every_steps=1", "--config.checkpoint.every_steps=3"),
]


@pytest.fixture
def run_config(config):
    """A run of six steps that uses what a resume could forget: averages, moments, a schedule, dropout, microbatches."""
    config.steps, config.model.dropout, config.training.ema_decay = 6, 0.1, 0.9
    config.training.microbatches, config.optimizer.warmup_steps = 2, 2
    config.evaluate.batches, config.evaluate.every_steps, config.sample.count = 2, 3, 2
    config.checkpoint.every_steps, config.log.every_steps, config.log.tensorboard = 2, 2, False
    return config


def final(config, workdir):
    state, step = train.restored(train.build(config, workdir))
    return jax.device_get(state), step


@pytest.mark.parametrize(("model", "source"), [("lstm", "surnames"), ("transformer", "digits")])
def test_three_steps_and_three_more_are_six_bit_for_bit(run_config, tmp_path, model, source):
    run_config.model.name, run_config.data.name, run_config.data.conditional = model, source, source == "digits"
    train.train(run_config, tmp_path / "straight", StopAt())
    with pytest.raises(Stopped, match="at step 3"):
        train.train(run_config, tmp_path / "resumed", StopAt(3))
    train.train(run_config, tmp_path / "resumed", StopAt())
    straight, resumed = (final(run_config, tmp_path / name)[0] for name in ("straight", "resumed"))
    assert int(straight.step) == 6
    assert_trees_close(straight, resumed)
    with open(tmp_path / "resumed" / "metrics.jsonl") as lines:
        steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)  # it went on: from scratch it would end in the same bits
    logged = [metrics.read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("straight", "resumed")]
    for one, other in zip(*logged, strict=True):
        for timed in ("time", "tokens_per_second"):
            one.pop(timed, None), other.pop(timed, None)
        # The resumed run logs step 4 over one step, the straight one over two.
        if one["step"] != 4:
            assert one == other


def test_a_run_leaves_what_the_readme_says_and_is_done_the_second_time(tmp_path):
    first = launch(*SMALL, f"--workdir={tmp_path}/run")
    assert first.returncode == 0, first.stderr
    assert "best n-gram" in first.stdout and "sampled" in first.stdout and "nats/char" in first.stdout
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left >= {
        "config.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "samples",
        "plots",
        "status.json",
        "report.html",
        "report.json",
    }
    records = metrics.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(7))
    assert all("generator/nll" in record for record in records[1:])
    rates = [record["generator/learning_rate"] for record in records[1:4]]
    assert rates == pytest.approx([0, 0.0025, 0.005])  # each line is about its own steps
    assert [record["step"] for record in records if "valid/nll" in record] == [0, 3, 6]
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 3 and list(
        (tmp_path / "run" / "tensorboard").iterdir()
    )
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["final"]["step"] == 6 and report["best"]["valid/nll"]["value"] > 0
    assert "data:image/png;base64" in (tmp_path / "run" / "report.html").read_text()
    again = launch(*SMALL, f"--workdir={tmp_path}/run")
    assert again.returncode == 0 and "already done at step 6" in again.stdout

    longer = launch(*SMALL, f"--workdir={tmp_path}/run", "--config.steps=8")
    assert longer.returncode == 0 and "resuming at step 6" in longer.stdout and "steps: 6 -> 8" in longer.stdout
    assert "valid/nll" in metrics.read_jsonl(tmp_path / "run" / "metrics.jsonl")[-1]  # the end is always evaluated
    other = launch(*SMALL, f"--workdir={tmp_path}/run", "--config.model.width=32")
    assert other.returncode == 2 and "model.width: 16 -> 32" in other.stderr

    measured = launch(*SMALL, f"--workdir={tmp_path}/run", "--mode=evaluate", "--config.evaluate.split=test")
    assert measured.returncode == 0 and "test/nll" in measured.stdout
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["step"] == 8
    other = launch(*SMALL, f"--workdir={tmp_path}/run", "--mode=evaluate", "--config.model.width=32")
    assert other.returncode == 2 and "model.width: 16 -> 32" in other.stderr
    sampled = launch(
        *SMALL,
        f"--workdir={tmp_path}/run",
        "--mode=sample",
        "--config.sample.count=5",
        "--config.sample.temperature=0.5",
    )
    assert sampled.returncode == 0 and sampled.stdout.count("\n") == 5

    child = launch(*SMALL, f"--workdir={tmp_path}/child", f"--config.init_from={tmp_path}/run")
    assert child.returncode == 0 and f"from the parameters of {tmp_path}/run at step 8" in child.stdout
    wrong = launch(
        *SMALL, f"--workdir={tmp_path}/wrong", f"--config.init_from={tmp_path}/run", "--config.model.layers=2"
    )
    assert wrong.returncode == 5 and "params/generator" in wrong.stderr and "Traceback" not in wrong.stderr


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


def test_sigterm_saves_and_leaves_with_42_and_kill_9_loses_nothing_that_was_saved(tmp_path):
    steps = [
        "--config.steps=150",
        "--config.checkpoint.every_steps=50",
        "--config.log.every_steps=5",
        "--config.evaluate.every_steps=1000",
    ]
    straight = launch(*SMALL, *steps, f"--workdir={tmp_path}/straight")
    assert straight.returncode == 0, straight.stderr

    workdir, status = tmp_path / "cut", tmp_path / "cut" / "status.json"
    child = start(*SMALL, *steps, f"--workdir={workdir}")
    wait_for(lambda: (metrics.read_json(status).get("step") or 0) >= 10, child)
    child.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 42 and time.monotonic() - asked < 10, errors
    saved = int(errors.split("at step ")[1].split(",")[0])
    assert saved >= 10 and metrics.read_json(status)["state"] == "stopped"

    child = start(*SMALL, *steps, f"--workdir={workdir}")
    wait_for(lambda: (metrics.read_json(status).get("step") or 0) >= 60, child)
    child.kill()
    assert f"resuming at step {saved}" in child.communicate()[0]
    assert launch(*SMALL, *steps, f"--workdir={workdir}").returncode == 0
    last = [json.loads((tmp_path / name / "report.json").read_text())["final"] for name in ("straight", "cut")]
    for name in ("valid/nll", "generator/grad_norm", "samples/entropy"):
        assert last[0][name] == last[1][name], name


def test_sigterm_before_the_first_step_is_no_traceback(tmp_path):
    child = start(*SMALL, f"--workdir={tmp_path}/run")
    wait_for(lambda: (tmp_path / "run" / "status.json").exists(), child)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 42 and "Traceback" not in errors


def test_a_signal_in_an_evaluation_drops_it_and_saves_the_step(run_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "evaluate", lambda run, state, step, out: step and signal.raise_signal(signal.SIGTERM))
    run_config.checkpoint.every_steps = 1000
    with signals.Stop() as stop, pytest.raises(Stopped, match="at step 3"):
        train.train(run_config, tmp_path, stop)
    assert final(run_config, tmp_path)[1] == 3


def test_the_averaged_parameters_are_measured_with_a_key_of_their_own_step(run_config, tmp_path):
    seen = []
    run = train.Run(run_config, tmp_path, None, None, [lambda params, key: seen.append((params, key)) or {}])
    for run_config.seed, step, ema in ((0, 3, "averaged"), (0, 4, ""), (1, 4, "")):
        train.measure(run, TrainState(step, "params", {}, ema, {}, {}), step)
    assert [params for params, _ in seen] == ["averaged", "params", "params"]
    assert len({tuple(jax.random.key_data(key).tolist()) for _, key in seen}) == 3


def test_a_child_starts_from_the_parameters_and_all_else_is_new(run_config, tmp_path):
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path / "parent", StopAt(2))
    parent = final(run_config, tmp_path / "parent")[0]
    run_config.init_from = str(tmp_path / "parent")
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path / "child", StopAt(0))
    child = final(run_config, tmp_path / "child")[0]
    assert child.step == 0 and not any(map(np.any, jax.tree.leaves(child.opt_state)))
    assert_trees_close(child.params, parent.params)
    assert_trees_close(child.ema, parent.params)


def test_one_job_a_workdir(tmp_path, run_config):
    with lock.lock(tmp_path), pytest.raises(WorkdirInUse, match=f"process {os.getpid()} "):
        train.train(run_config, tmp_path, StopAt())
    with lock.lock(tmp_path):
        second = launch(*SMALL, f"--workdir={tmp_path}")
    assert second.returncode == 6 and str(os.getpid()) in second.stderr and "Traceback" not in second.stderr


def test_what_cannot_be_trained_on_or_written_to(tmp_path):
    missing = launch(*SMALL, f"--workdir={tmp_path}/a", "--config.data.name=text:/no/such/file")
    assert missing.returncode == 4 and "/no/such/file" in missing.stderr and "Traceback" not in missing.stderr
    (tmp_path / "file").write_text("")
    occupied = launch(*SMALL, f"--workdir={tmp_path}/file")
    assert occupied.returncode == 2 and "workdir" in occupied.stderr and "Traceback" not in occupied.stderr
    nothing = launch(*SMALL, f"--workdir={tmp_path}/nothing", "--mode=sample")
    assert nothing.returncode == 5 and "no checkpoint" in nothing.stderr
    assert not (tmp_path / "nothing").exists()


def test_divergence_ends_with_3_and_leaves_no_bad_checkpoint(tmp_path):
    run = launch(
        *SMALL,
        f"--workdir={tmp_path}",
        "--config.steps=40",
        "--config.optimizer.learning_rate=1e38",
        "--config.optimizer.warmup_steps=0",
    )
    assert run.returncode == 3 and "10 updates in a row" in run.stderr, run.stderr
    assert metrics.read_json(tmp_path / "status.json")["state"] == "failed"
    for step in (path.name for path in (tmp_path / "checkpoints").iterdir()):
        assert int(step) < 10


def test_a_damaged_newest_checkpoint_falls_back_and_never_to_step_0(run_config, tmp_path):
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(4))
    damage = [
        max(
            (path for path in (tmp_path / "checkpoints" / "4").rglob("*") if path.is_file()),
            key=lambda p: p.stat().st_size,
        )
    ]
    damage[0].write_bytes(damage[0].read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match=damage[0].name):
        assert final(run_config, tmp_path)[1] == 2 and damage[0].exists()  # to look puts nothing aside
    with pytest.warns(UserWarning, match=damage[0].name):
        train.train(run_config, tmp_path, StopAt())
    assert final(run_config, tmp_path)[1] == 6
    for path in (tmp_path / "checkpoints").rglob("manifest.json"):
        path.write_text("{}")
    run_config.steps = 8
    with pytest.raises(CheckpointError, match="damaged"):
        train.train(run_config, tmp_path, StopAt())


def test_a_checkpoint_goes_on_on_another_mesh(run_config, tmp_path):
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(3))
    here = final(run_config, tmp_path)[0]
    assert here.step == 3
    run_config.mesh.update({"data": 2, "fsdp": 4})
    assert_trees_close(final(run_config, tmp_path)[0], here)
    train.train(run_config, tmp_path, StopAt())


def test_two_processes_train_as_one(tmp_path):
    address = f"127.0.0.1:{peers.free_port()}"
    pair = [
        start(
            *SMALL,
            f"--workdir={tmp_path}/two",
            f"--coordinator={address}",
            "--processes=2",
            f"--process={index}",
            JAX_NUM_CPU_DEVICES="2",
        )
        for index in range(2)
    ]
    outputs = [child.communicate(timeout=180) for child in pair]
    assert [child.returncode for child in pair] == [0, 0], outputs
    alone = launch(*SMALL, f"--workdir={tmp_path}/one", JAX_NUM_CPU_DEVICES="4")
    assert alone.returncode == 0, alone.stderr
    two, one = (metrics.read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    assert [record["step"] for record in two] == [record["step"] for record in one]
    for a, b in zip(two, one, strict=True):
        for name in ("generator/nll", "generator/grad_norm", "valid/nll"):
            if name in a:
                np.testing.assert_allclose(a[name], b[name], rtol=2e-5, err_msg=f"{name} at step {a['step']}")


@pytest.mark.parametrize(
    "config", sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("base", "__init__"))
)
def test_every_config_builds_and_traces_one_update(config):
    run = launch(f"--config=configs/{config}.py", "--dry_run")
    assert run.returncode == 0, run.stderr
    assert "parameters" in run.stdout and "MiB" in run.stdout and "mesh" in run.stdout


def test_a_dry_run_counts_shards_and_microbatches(config, spec, monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 1)
    config.data.batch_size = 64
    one = memory(config, program.build(config, spec))
    config.training.microbatches = 4
    four = memory(config, program.build(config, spec))
    kept = "kept for the backward pass"
    assert four["gradients"] == 2 * one["gradients"] == 2 * one["parameters"] and 0 < four[kept] < one[kept] / 2
    config.mesh.update({"data": 1, "fsdp": 8})
    assert memory(config, program.build(config, spec))["parameters"] < one["parameters"] / 4


def test_checkpoints_by_the_clock(run_config, tmp_path):
    run_config.checkpoint.every_steps, run_config.checkpoint.every_seconds = 1000, 1e-9
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(5))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 5]  # kept: the last two


def test_the_clock_begins_anew_at_every_checkpoint(run_config, tmp_path, monkeypatch):
    ticks = itertools.count()  # one for each look at the clock: at the start, at each line of the log, at each save
    monkeypatch.setattr(train, "time", SimpleNamespace(time=time.time, monotonic=lambda: next(ticks)))
    run_config.checkpoint.update({"every_steps": 1000, "every_seconds": 1.5, "keep_last": 9})
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(5))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [2, 5]


def test_a_run_that_diverged_is_not_saved(run_config, tmp_path):
    run = train.Run(run_config, tmp_path, None, None, [])
    state = TrainState(12, {}, {}, {}, {}, {"generator": np.int32(run_config.training.max_skipped)})
    with pytest.raises(Diverged, match="from step 2 on"):
        train.save(run, state, 12, checkpoints=None, phases=Phases(None))


def test_prepare_encodes_what_the_run_will_read(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"line {number} of some text" for number in range(200)))
    arguments = [
        "--config=configs/surnames_likelihood.py",
        f"--config.data.name=text:{tmp_path}/text.txt",
        "--config.data.text.unit=line",
    ]
    command = [sys.executable, "-m", "launch.prepare", *arguments]
    prepared = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert prepared.returncode == 0 and "train: " in prepared.stdout and "documents" in prepared.stdout, prepared.stderr


def test_an_unprepared_set_names_the_command_within_seconds(tmp_path):
    started = time.monotonic()
    run = launch(*SMALL, f"--workdir={tmp_path}/run", "--config.data.name=tfds:mnist", TFDS_DATA_DIR=str(tmp_path))
    assert run.returncode == 4 and "python -m launch.prepare" in run.stderr and time.monotonic() - started < 15


def test_a_batch_that_the_devices_cannot_share_is_refused_before_compiling(tmp_path):
    run = launch(*SMALL, f"--workdir={tmp_path}/run", JAX_NUM_CPU_DEVICES="3")
    assert run.returncode == 2 and "nearest that does is 15" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("kind", ["tokens", "images"])
def test_a_game_of_two_resumes_between_any_two_steps_to_the_same_bits(run_config, tmp_path, kind):
    """Both players, averages, the moving baseline and the vectors of spectral normalisation are in the checkpoint."""
    config = run_config
    config.objective.name, config.training.microbatches, config.steps = "adversarial", 1, 5
    config.adversarial.critic_steps, config.adversarial.baseline = 2, "moving_average"
    config.adversarial.spectral_norm, config.critic.width, config.critic.dropout = True, 8, 0.1
    config.optimizer.warmup_steps, config.checkpoint.every_steps, config.checkpoint.keep_last = 0, 1, 9
    config.evaluate.every_steps, config.evaluate.evaluators = 5, ("samples",)
    if kind == "images":
        config.data.name, config.model.name, config.critic.name = "digits", "dcgan", "dcgan"
        config.adversarial.augment, config.model.dropout, config.model.width = ("shift", "cutout"), 0.0, 4
    train.train(config, tmp_path / "whole", signals.Stop())
    run = train.build(config, tmp_path / "whole")
    expected, step = train.restored(run)
    assert step == 5 and set(expected.params) == set(expected.ema) == {"critic", "generator"}
    assert expected.carry["spectral"] and (kind == "images" or expected.carry["baseline"] != 0)
    for cut in (4, 3, 2, 1):
        shutil.rmtree(tmp_path / "whole" / "checkpoints" / str(cut + 1))
        state, step = train.restored(run)
        assert step == cut
        for n in range(cut, 5):
            batch = sharding.put(run.data.train.batch(n), run.program.mesh, config.data.batch_size)
            state, _ = run.program.update(state, batch)
        assert_trees_close(jax.device_get(state), jax.device_get(expected))


def test_a_critic_joins_a_generator_that_was_trained_by_likelihood(run_config, tmp_path):
    run_config.critic.width = run_config.model.width
    train.train(run_config, tmp_path / "likelihood", signals.Stop())
    before = final(run_config, tmp_path / "likelihood")[0]
    config = run_config.copy_and_resolve_references()
    config.init_from, config.objective.name = str(tmp_path / "likelihood"), "adversarial"
    config.training.microbatches, config.steps, config.optimizer.warmup_steps = 1, 2, 0
    built = train.build(config, tmp_path / "game")
    with train.Checkpoints(tmp_path / "game" / "checkpoints", keep_last=1, keep_every=0) as checkpoints:
        state = jax.device_get(train.start(built, checkpoints, lambda line: None))
    assert_trees_close(state.params["generator"], before.params["generator"])
    assert_trees_close(state.ema["generator"], state.params["generator"])
    assert set(state.params) == {"critic", "generator"} and int(state.step) == 0
    train.train(config, tmp_path / "game", signals.Stop())
