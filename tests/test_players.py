"""Players whose parameters another run gives: never moved, never stored, and the very same ones after a resume."""

import json
import shutil
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import program, train
from gentrain.errors import CheckpointError, ConfigError, Stopped
from gentrain.objectives.base import Objective
from gentrain.runtime.checkpoint import Checkpoints
from gentrain.sums import Sum
from tests.helpers import StopAt, assert_trees_close


@dataclass(frozen=True)
class Alone(Objective):
    """One player of three numbers, which go towards 3."""

    model: Any = None
    players: tuple[str, ...] = ("generator",)
    frozen: tuple[str, ...] = ()

    def init(self, key, batch):
        numbers = jax.random.normal(key, (3,))
        return {player: {"kernel": numbers} for player in (*self.players, *self.frozen)}, {}

    def target(self, params):
        return 3.0

    def loss(self, player, params, carry, batch, key, step):
        rows = jnp.asarray(batch["tokens"].shape[0], jnp.float32)
        error = jnp.sum(jnp.square(params[player]["kernel"] - self.target(params)))
        return Sum(rows * error, rows), {}


@dataclass(frozen=True)
class Student(Alone):
    """A player that goes towards the numbers of another one, which is given."""

    frozen: tuple[str, ...] = ("teacher",)

    def target(self, params):
        return params["teacher"]["kernel"]


@dataclass(frozen=True)
class Pair(Alone):
    """Two players that learn, of which one may start as a copy of the other."""

    players: tuple[str, ...] = ("critic", "generator")
    size: int = 3

    def init(self, key, batch):
        params, carry = super().init(key, batch)
        return params | {"critic": {"kernel": 7 * jnp.ones(self.size)}}, carry

    def target(self, params):
        return 100 + params["critic"]["kernel"].mean()

    def stand_in(self, player):
        return "generator" if player == "critic" else None


@pytest.fixture
def run_config(config, run_on_one_device):
    config.steps, config.evaluate.evaluators, config.log.loggers = 6, (), ()
    config.checkpoint.keep_last, config.training.ema_decay = 9, 0.5
    config.optimizer.learning_rate, config.optimizer.schedule = 0.1, "constant"
    return config


@pytest.fixture
def trained(run_config, tmp_path, monkeypatch):
    """trained(objective, name, stop, init_from): trains runs/name from where it stands; its config and workdir."""

    def run(objective, name, stop, init_from=""):
        config = run_config.copy_and_resolve_references()
        with config.ignore_type():
            config.init_from = init_from
        built = SimpleNamespace(load=lambda room, name: SimpleNamespace(build=lambda config, spec: objective))
        monkeypatch.setattr(program, "plugins", built)
        with pytest.raises(Stopped):
            train.train(config, tmp_path / name, StopAt(stop))
        return train.build(config, tmp_path / name)

    return run


@pytest.fixture
def teacher(trained):
    """A run that stands at step 2."""
    return trained(Alone(), "x", 2)


def given_by(teacher, source="generator"):
    return (("teacher", str(teacher.workdir), source),)


def restored(run):
    return jax.device_get(train.restored(run)[0])


def leaves_of(run, step):
    """The paths of the arrays in a checkpoint, and what is noted beside them."""
    noted = json.loads((run.workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())
    return noted["leaves"].keys(), noted["meta"]


def test_a_frozen_player_has_no_optimiser_state_average_or_counter_and_never_moves(trained, teacher):
    built = program.build(teacher.config, teacher.data.spec, teacher.program.mesh)
    assert built.state.frozen == {}
    student = trained(Student(), "student", 1, given_by(teacher)).program
    for part in (student.state.params, student.state.opt_state, student.state.ema, student.state.health.skipped):
        assert part.keys() == {"generator"}
    assert student.state.frozen.keys() == {"teacher"}
    state = student.init()
    before = jax.device_get(state)
    batch = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in student.batch.items()}
    for _ in range(3):
        state, sums = student.update(state, batch)
    assert not any(name.startswith("teacher/") for name in sums)
    assert_trees_close(jax.device_get(state.frozen), before.frozen)
    assert state.frozen.keys() == {"teacher"} and state.params.keys() == {"generator"}


def test_it_is_filled_by_init_from_and_named_in_the_checkpoint_but_not_stored(trained, teacher):
    run = trained(Student(), "student", 3, given_by(teacher))
    state, given = restored(run), restored(teacher)
    assert state.step == 3 and given.step == 2
    assert_trees_close(state.frozen["teacher"], given.params["generator"])
    distance = np.abs(state.params["generator"]["kernel"] - given.params["generator"]["kernel"])
    fresh = jax.device_get(run.program.init()).params["generator"]["kernel"]
    assert np.all(distance < np.abs(fresh - given.params["generator"]["kernel"]))  # it follows the teacher it was given
    leaves, meta = leaves_of(run, 3)
    assert not [path for path in leaves if "teacher" in path or path.startswith("frozen")]
    assert "params/generator/kernel" in leaves
    manifest = json.loads((teacher.workdir / "checkpoints" / "2" / "manifest.json").read_text())
    origin = {"workdir": str(teacher.workdir), "player": "generator", "step": 2, "digest": manifest["sha256"]}
    assert meta["frozen"] == {"teacher": origin}


def test_a_resume_restores_the_very_same_checkpoint_even_when_the_other_run_has_trained_on(trained, teacher):
    first = trained(Student(), "student", 3, given_by(teacher))
    given = restored(teacher)
    assert not np.array_equal(
        given.params["generator"]["kernel"], restored(trained(Alone(), "x", 4)).params["generator"]["kernel"]
    )
    second = trained(Student(), "student", 5)  # whatever init_from says: it goes on
    assert first.workdir == second.workdir and restored(second).step == 5
    assert_trees_close(restored(second).frozen["teacher"], given.params["generator"])
    assert leaves_of(second, 5)[1]["frozen"] == leaves_of(second, 3)[1]["frozen"]
    straight = trained(Student(), "straight", 3, given_by(teacher)).workdir  # the other run's newest: step 4
    assert leaves_of(SimpleNamespace(workdir=straight), 3)[1]["frozen"]["teacher"]["step"] == 4


def gone(checkpoints):
    shutil.rmtree(checkpoints / "2")


def damaged(checkpoints):
    path = checkpoints / "2" / "state" / "_METADATA"
    path.write_bytes(path.read_bytes() + b"?")


def another(checkpoints):
    shutil.rmtree(checkpoints / "2")
    shutil.copytree(checkpoints.parent.parent / "y" / "checkpoints" / "2", checkpoints / "2")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (gone, r"x/checkpoints has no step 2; there are: \[4\]"),
        (damaged, "x/checkpoints/2: state/_METADATA: expected"),
        (another, "x/checkpoints/2 is not the checkpoint that 'teacher' started from"),
    ],
)
def test_a_resume_refuses_in_one_line_what_is_not_the_checkpoint_it_started_from(
    trained, teacher, run_config, change, words
):
    trained(Student(), "student", 3, given_by(teacher))
    trained(Alone(), "x", 4)
    run_config.seed = 1
    trained(Alone(), "y", 2)
    run_config.seed = 0
    change(teacher.workdir / "checkpoints")
    with pytest.raises(CheckpointError, match=words) as raised:
        trained(Student(), "student", 5, given_by(teacher))
    assert "\n" not in str(raised.value)


def test_a_frozen_player_that_nothing_gives_is_a_config_error(trained, teacher):
    expected = "player 'teacher' is frozen: expected init_from to say where it is from"
    for number, init_from in enumerate(("", str(teacher.workdir), (("generator", str(teacher.workdir), "generator"),))):
        with pytest.raises(ConfigError, match=expected) as raised:
            trained(Student(), f"student{number}", 1, init_from)
        assert "(('teacher', 'runs/x', 'generator'),)" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("init_from", "words"),
    [
        ((("judge", "runs/x", "generator"),), "names player 'judge': expected one of generator, teacher"),
        ((("teacher", "runs/x"),), "expected a workdir, or .player, workdir, its player. triples"),
        (("teacher", "runs/x", "generator"), "init_from has 'teacher': expected a workdir"),
    ],
)
def test_an_unknown_player_or_something_else_than_triples_is_a_config_error(trained, init_from, words):
    with pytest.raises(ConfigError, match=words):
        trained(Student(), "student", 1, init_from)


def test_a_player_that_the_other_run_does_not_have_is_an_error_where_it_is_asked_for_by_name(trained, teacher):
    beside = (("generator", str(teacher.workdir), "generator"),)  # which it has
    for number, init_from in enumerate((given_by(teacher, "critic"), (*beside, *given_by(teacher, "critic")))):
        with pytest.raises(CheckpointError, match=r"has the players \['generator'\], not critic"):
            trained(Student(), f"student{number}", 1, init_from)


def test_one_player_may_give_two_and_the_one_that_learns_goes_its_own_way(trained, teacher):
    run = trained(Student(), "student", 0, (*given_by(teacher), ("generator", str(teacher.workdir), "generator")))
    state, given = restored(run), restored(teacher).params["generator"]
    for params in (state.params["generator"], state.ema["generator"], state.frozen["teacher"]):
        assert_trees_close(params, given)
    assert state.step == 0 and not any(map(np.any, jax.tree.leaves(state.opt_state)))
    moved = restored(trained(Student(), "student", 2))
    assert_trees_close(moved.frozen["teacher"], given)
    elsewhere = trained(
        Student(), "elsewhere", 1, (*given_by(teacher), ("generator", str(teacher.workdir), "generator"))
    )
    assert restored(elsewhere).step == 1


@pytest.mark.parametrize("by", ["workdir", "triple"])
def test_a_player_that_no_run_gives_starts_as_a_copy_of_its_stand_in(trained, teacher, capsys, by):
    workdir = str(teacher.workdir)
    init_from = workdir if by == "workdir" else (("generator", workdir, "generator"),)
    given, run = restored(teacher).params["generator"], trained(Pair(), "pair", 0, init_from)
    for params in (restored(run).params, restored(run).ema):
        assert_trees_close(params, {"critic": given, "generator": given})
    assert "the critic starts as a copy of the generator" in capsys.readouterr().out
    moved = restored(trained(Pair(), "pair", 1))  # one array each: both move, each its own way
    assert not np.array_equal(moved.params["critic"]["kernel"], moved.params["generator"]["kernel"])
    # A run that has both gives both.
    assert_trees_close(restored(trained(Pair(), "again", 0, str(run.workdir))).params, restored(run).params)
    assert capsys.readouterr().out.count("starts as a copy") == 0


def test_a_player_that_does_not_fit_its_stand_in_starts_from_scratch_with_a_warning(trained, teacher, capsys):
    run = trained(Pair(size=4), "pair", 0, str(teacher.workdir))
    assert np.all(restored(run).params["critic"]["kernel"] == 7)
    assert "warning: the critic starts from scratch: with the name, width and layers" in capsys.readouterr().out
    trained(Pair(), "alone", 0)
    assert "critic" not in capsys.readouterr().out  # nor is anything said where no run gives the generator


def test_a_workdir_alone_gives_every_player_of_the_same_name(trained, teacher):
    run = trained(Alone(), "child", 0, str(teacher.workdir))
    assert_trees_close(restored(run).params, restored(teacher).params)


def test_a_checkpoint_of_a_run_with_frozen_players_restores_without_them(trained, teacher):
    run = trained(Student(), "student", 1, given_by(teacher))
    with Checkpoints(run.workdir / "checkpoints", read_only=True) as checkpoints:
        _, state, _ = checkpoints.restore(replace(run.program.state, frozen={}))
    assert state.frozen == {}
