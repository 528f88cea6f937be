"""A run in this process: it resumes to the same bits, saves when it should, and starts from other runs."""

import itertools
import json
import shutil
import signal
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from gentrain import files, health, replay, sharding, train
from gentrain.errors import CheckpointError, ConfigError, Corrupted, Diverged, ReportError, Stopped
from gentrain.reporting import page, report
from gentrain.runtime import signals
from gentrain.runtime.checkpoint import Checkpoints
from gentrain.runtime.goodput import Phases
from gentrain.update import TrainState
from tests.helpers import StopAt, assert_trees_close

on_all_devices = sharding.make_mesh


@pytest.fixture
def run_config(config, run_on_one_device):
    """A run of six steps that uses what a resume could forget: averages, moments, a schedule, dropout, microbatches."""
    config.steps, config.model.dropout, config.training.ema_decay = 6, 0.1, 0.9
    config.training.microbatches, config.optimizer.warmup_steps = 2, 2
    config.evaluate.batches, config.evaluate.every_steps, config.sample.count = 2, 3, 2
    config.checkpoint.every_steps, config.log.every_steps, config.log.loggers = 2, 2, ()
    return config


def final(config, workdir):
    state, step, _ = train.restored(train.build(config, workdir))
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
    logged = [files.read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("straight", "resumed")]
    for one, other in zip(*logged, strict=True):
        for timed in ("time", "tokens_per_second"):
            one.pop(timed, None), other.pop(timed, None)
        # The resumed run logs step 4 over one step, the straight one over two.
        if one["step"] != 4:
            assert one == other


def test_a_signal_in_an_evaluation_drops_it_and_saves_the_step(run_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "evaluate", lambda run, state, step, out: step and signal.raise_signal(signal.SIGTERM))
    run_config.checkpoint.every_steps = 1000
    with signals.Stop() as stop, pytest.raises(Stopped, match="at step 3"):
        train.train(run_config, tmp_path, stop)
    assert final(run_config, tmp_path)[1] == 3


def test_the_averaged_parameters_are_measured_with_a_key_of_their_own_step(run_config, tmp_path):
    calls = []
    run = train.Run(run_config, tmp_path, None, None, [lambda params, key: calls.append((params, key)) or {}])
    params, frozen, averaged = {"generator": "trained"}, {"teacher": "given"}, {"generator": "averaged"}
    for run_config.seed, step, ema in ((0, 3, averaged), (0, 4, {}), (1, 4, {})):
        train.measure(run, TrainState(step, params, frozen, {}, ema, {}, None), step)
    assert [params["generator"] for params, _ in calls] == ["averaged", "trained", "trained"]
    assert all(params["teacher"] == "given" for params, _ in calls)
    assert len({tuple(jax.random.key_data(key).tolist()) for _, key in calls}) == 3


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


def test_a_damaged_newest_checkpoint_falls_back_and_never_to_step_0(run_config, tmp_path):
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(4))
    paths = [path for path in (tmp_path / "checkpoints" / "4").rglob("*") if path.is_file()]
    damaged = max(paths, key=lambda path: path.stat().st_size)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.warns(UserWarning, match=damaged.name):
        assert final(run_config, tmp_path)[1] == 2 and damaged.exists()  # to look puts nothing aside
    with pytest.warns(UserWarning, match=damaged.name):
        train.train(run_config, tmp_path, StopAt())
    assert final(run_config, tmp_path)[1] == 6
    for path in (tmp_path / "checkpoints").rglob("manifest.json"):
        path.write_text("{}")
    run_config.steps = 8
    with pytest.raises(CheckpointError, match="damaged"):
        train.train(run_config, tmp_path, StopAt())


def test_a_run_that_is_done_loses_nothing_and_forgets_nothing(run_config, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ValueError("no such colour")

    def status():
        found = files.read_json(tmp_path / "status.json")
        return found["state"], found["step"], found.get("exit_code")

    with (
        monkeypatch.context() as patch,
        pytest.warns(UserWarning, match=r"its report is not written \(ValueError: no such colour\)"),
        pytest.raises(ReportError, match="all is trained and saved"),
    ):
        patch.setattr(page, "render", broken)
        train.train(run_config, tmp_path, StopAt())
    assert status() == ("failed", 6, 1) and not report.is_written(tmp_path)
    train.train(run_config, tmp_path, StopAt())
    assert status() == ("done", 6, None) and report.is_written(tmp_path)
    (tmp_path / "report.json").write_text("")
    with pytest.warns(UserWarning, match="report.json is damaged"):
        train.train(run_config, tmp_path, StopAt())
    assert report.is_written(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    train.train(run_config, tmp_path, StopAt())  # nothing is left to be done
    run_config.steps = 8
    with pytest.raises(CheckpointError, match=r"status.json says that step 6"):
        train.train(run_config, tmp_path, StopAt())
    assert status() == ("done", 6, None)


def test_a_checkpoint_goes_on_on_another_mesh(run_config, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(3))
    here = final(run_config, tmp_path)[0]
    assert here.step == 3
    monkeypatch.setattr(sharding, "make_mesh", on_all_devices)
    run_config.mesh.update({"data": 2, "fsdp": 4})
    assert_trees_close(final(run_config, tmp_path)[0], here)
    train.train(run_config, tmp_path, StopAt())


def test_checkpoints_by_the_clock(run_config, tmp_path):
    run_config.checkpoint.every_steps, run_config.checkpoint.every_seconds = 1000, 1e-9
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(5))
    # The last two are kept, and the first: ten more steps have not yet proved a later one.
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [2, 4, 5]


def test_the_clock_begins_anew_at_every_checkpoint(run_config, tmp_path, monkeypatch):
    ticks = itertools.count()  # one for each look at the clock: at the start, at each line of the log, at each save
    monkeypatch.setattr(train, "time", SimpleNamespace(time=time.time, monotonic=lambda: next(ticks)))
    run_config.checkpoint.update({"every_steps": 1000, "every_seconds": 1.5, "keep_last": 9})
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(5))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [2, 5]


def test_a_divergence_puts_aside_what_it_spoiled_and_a_lower_rate_goes_on(run_config, tmp_path, capsys):
    run_config.model.name, run_config.checkpoint.every_steps, run_config.checkpoint.keep_last = "transformer", 1, 1
    run_config.optimizer.schedule, run_config.optimizer.warmup_steps, run_config.training.max_skipped = "constant", 0, 2
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(3))
    sound = final(run_config, tmp_path)[0]
    run_config.optimizer.learning_rate = 1e12
    # Step 4 is saved before anything shows that its parameters are past saving.
    with pytest.raises(Diverged, match=r"from step 4 on.* it goes on from step 3"):
        train.train(run_config, tmp_path, StopAt())
    assert (tmp_path / "checkpoints" / "quarantine-4").is_dir()
    assert_trees_close(final(run_config, tmp_path)[0], sound)
    run_config.optimizer.learning_rate = 1e-3
    train.train(run_config, tmp_path, StopAt())
    assert "resuming at step 3" in capsys.readouterr().out and final(run_config, tmp_path)[1] == 6


def test_nothing_is_saved_while_an_update_is_left_out(run_config, tmp_path, monkeypatch):
    run_config.checkpoint.every_steps, run_config.checkpoint.keep_last = 1, 9
    saved, check = [], health.check
    unsound = {2: False, 3: False}
    monkeypatch.setattr(health, "check", lambda step, *rest, **named: unsound.get(step, check(step, *rest, **named)))
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, state, meta: saved.append(step))
    train.train(run_config, tmp_path / "all", StopAt())
    with pytest.raises(Stopped, match="step 3, its last updates were not finite, so it is not saved"):
        train.train(run_config, tmp_path / "stopped", StopAt(3))
    assert saved == [1, 4, 5, 6, 1]


def test_rewound_with_batches_left_out_it_is_a_run_that_never_saw_them(run_config, tmp_path, capsys):
    run_config.checkpoint.keep_last = 9
    train.train(run_config, tmp_path / "rewound", StopAt())
    run_config.data.skip_batches = ((3, 5), (7, 8))
    with pytest.raises(ConfigError, match="has trained up to batch 6: rewind"):
        run_config.steps = 8
        train.train(run_config, tmp_path / "rewound", StopAt())
    run_config.steps = 6
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path / "rewound", StopAt(4), rewind=2)
    assert sorted(path.name for path in (tmp_path / "rewound/checkpoints").iterdir())[-2:] == ["rewound-4", "rewound-6"]
    run_config.data.skip_batches = ()  # they stay left out
    train.train(run_config, tmp_path / "rewound", StopAt(), rewind=2)  # the same command again goes on
    assert "resuming at step 4" in capsys.readouterr().out
    run_config.data.skip_batches = ((3, 5), (7, 8))
    train.train(run_config, tmp_path / "clean", StopAt())
    rewound, clean = (final(run_config, tmp_path / name)[0] for name in ("rewound", "clean"))
    assert_trees_close(rewound, clean)


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
    expected, step, _ = train.restored(run)
    assert step == 5 and set(expected.params) == set(expected.ema) == {"critic", "generator"}
    assert expected.carry["spectral"] and (kind == "images" or expected.carry["baseline"] != 0)
    for cut in (4, 3, 2, 1):
        shutil.rmtree(tmp_path / "whole" / "checkpoints" / str(cut + 1))
        state, step, _ = train.restored(run)
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
    lines = []
    with Checkpoints(tmp_path / "game" / "checkpoints") as checkpoints:
        session = train.Session(SimpleNamespace(say=lines.append), checkpoints, None, Phases(None), StopAt())
        state = jax.device_get(train.start(built, session))
    assert lines == [f"starting from the parameters of {tmp_path / 'likelihood'} at step 6: generator"]
    assert_trees_close(state.params["generator"], before.params["generator"])
    assert_trees_close(state.ema["generator"], state.params["generator"])
    assert set(state.params) == {"critic", "generator"} and int(state.step) == 0
    train.train(config, tmp_path / "game", signals.Stop())


def test_steps_done_once_more_end_in_the_same_bits_or_say_so(run_config, tmp_path, monkeypatch):
    run_config.checkpoint.keep_last, run_config.data.skip_batches = 9, ((1, 3),)
    train.train(run_config, tmp_path, StopAt())
    files_before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    said: list[str] = []
    replay.replay(run_config, tmp_path, 2, 6, said.append)
    assert [line.split(":")[0] for line in said[:-1]] == [f"step {step}" for step in range(2, 6)]
    assert said[-1] == "the same bits as the checkpoint of step 6"
    logged = {record["step"]: record for record in files.read_jsonl(tmp_path / "metrics.jsonl")}
    nll = float.fromhex(said[-2].partition("(")[2].rstrip(")"))
    assert logged[6]["generator/loss"] == pytest.approx(nll, rel=0.1)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == files_before
    replay.replay(run_config, tmp_path, 4, 5, said.append)
    assert said[-1] == "there is no checkpoint of step 5 to compare with"
    batch_number = train.batch_number
    monkeypatch.setattr(train, "batch_number", lambda step, left_out: batch_number(step, left_out) + (step == 5))
    with pytest.raises(CheckpointError, match="steps 4 to 6 end in other bits"):
        replay.replay(run_config, tmp_path, 4, 6, said.append)
    with pytest.raises(CheckpointError, match="no step 3"):
        replay.replay(run_config, tmp_path, 3, 6, said.append)


def test_copies_that_differ_end_the_run_and_what_was_saved_since_is_put_aside(
    run_config, tmp_path, monkeypatch, no_mesh
):
    monkeypatch.setattr(sharding, "make_mesh", on_all_devices)
    run_config.training.microbatches, run_config.training.replica_check_steps = 1, 2
    run_config.checkpoint.every_steps, run_config.checkpoint.keep_last = 1, 9
    looks = itertools.count(1)
    found = lambda state, differ: ["params/generator/embed"] if next(looks) == 2 else []
    monkeypatch.setattr(train.replicas, "names_of", found)
    with pytest.raises(Corrupted, match=r"at step 4 .*params/generator/embed.* after step 2"):
        train.train(run_config, tmp_path, StopAt())
    assert final(run_config, tmp_path)[1] == 2
    train.train(run_config, tmp_path, StopAt())
