"""One update function for any objective: the same step whatever the mesh, the microbatches and the mode; and never a
bad one."""

import inspect
import itertools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gentrain import program, schedules, sharding, update
from gentrain.errors import ConfigError
from gentrain.objectives.base import Objective
from gentrain.options.sections import DECAY, EPSILON, OPTIMIZERS
from gentrain.sums import Sum, mean
from tests.helpers import assert_trees_close, ragged_batch


def test_the_gradient_is_that_of_the_mean_over_tokens_not_of_a_mean_of_means(config, spec):
    """By hand: parameters after one sgd step are theta - rate * grad(total / weight) over the whole ragged batch."""
    config.optimizer.name, config.optimizer.clip_norm, config.training.microbatches = "sgd", 0.0, 4
    config.mesh.data = 1
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, 4, jax.devices()[:1])
    built = program.build(config, spec, mesh)
    state = built.init()
    before = jax.device_get(state.params["generator"])
    batch = jax.tree.map(jnp.asarray, ragged_batch(spec, config.data.batch_size, 7))

    def mean_loss(params):
        total, weight = built.objective.loss("generator", {"generator": params}, {}, batch, jax.random.key(0), 0)[0]
        return total / weight

    gradient = jax.jit(jax.grad(mean_loss))(before)
    expected = jax.tree.map(lambda p, g: p - config.optimizer.learning_rate * g, before, gradient)
    after, _ = built.update(state, sharding.put(batch, mesh, config.data.batch_size))
    assert_trees_close(jax.device_get(after.params["generator"]), expected, atol=1e-6)
    assert state.step.is_deleted()  # the old state is donated: its memory goes to the new one


@dataclass(frozen=True)
class Duel(Objective):
    """Two players on one number each: a critic that moves twice towards twice the generator, a generator that moves
    towards the data."""

    players: tuple[str, ...] = ("critic", "critic", "generator")
    splittable: bool = True
    critic_rate: float = 1.0

    def init(self, key, batch):
        return {"critic": {"kernel": jnp.zeros(())}, "generator": {"kernel": jnp.ones(())}}, {"examples": jnp.zeros(())}

    def loss(self, player, params, carry, batch, key, step):
        critic, generator = params["critic"]["kernel"], params["generator"]["kernel"]
        target = 2 * generator if player == "critic" else jnp.mean(batch["tokens"].astype(jnp.float32)) + 0 * critic
        distance = jnp.square(params[player]["kernel"] - target)
        error = jnp.where(jnp.any(batch["tokens"] < 0) & (player == "generator"), jnp.nan, distance)
        rows = jnp.asarray(batch["tokens"].shape[0], jnp.float32)
        return Sum(error * rows, rows), {"error": Sum(error * rows, rows)}

    def rate(self, player):
        return self.critic_rate if player == "critic" else 1.0

    def remember(self, carry, metrics, params):
        return {"examples": carry["examples"] + metrics["generator/error"].weight}


def duel(config, kind=Duel, devices=1, **changes):
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, 1, jax.devices()[:devices])
    init, step = update.build(config, kind(**changes), mesh)
    return init, sharding.compile_on(mesh, step)


def test_players_move_in_order_each_on_its_own_loss_and_see_the_moves_before(config):
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.schedule = "sgd", 0.25, "constant"
    config.optimizer.clip_norm = 0.0
    config.training.ema_decay = 0.25
    init, step = duel(config)
    batch = {"tokens": np.full((16, 4), 3, np.int32)}
    state, sums = step(init(batch), batch)
    # Each move halves the distance: critic 0 -> 1 -> 1.5 towards 2, then generator 1 -> 2 towards 3.
    assert state.params == {"critic": {"kernel": 1.5}, "generator": {"kernel": 2.0}}
    assert state.ema == {"critic": {"kernel": 1.125}, "generator": {"kernel": 1.75}}
    assert sums["critic/error"] == Sum(16 * (4.0 + 1.0), 32.0)  # both moves
    assert state.carry == {"examples": 16.0} and state.step == 1


def test_a_rate_scales_the_updates_of_its_player_alone(config):
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.schedule = "sgd", 0.25, "constant"
    config.optimizer.clip_norm = 0.0
    batch = {"tokens": np.full((16, 4), 3, np.int32)}
    players = ("critic", "generator")
    whole, half = (duel(config, players=players, critic_rate=rate) for rate in (1.0, 0.5))
    (one, one_sums), (other, other_sums) = (step(init(batch), batch) for init, step in (whole, half))
    # The critic goes from 0 towards 2: by half of the way, and by half of that.
    assert one.params == {"critic": {"kernel": 1.0}, "generator": {"kernel": 2.0}}
    assert other.params == {"critic": {"kernel": 0.5}, "generator": {"kernel": 2.0}}
    rates = [[mean(sums[f"{player}/learning_rate"]) for player in players] for sums in (one_sums, other_sums)]
    assert rates == [[0.25, 0.25], [0.125, 0.25]]
    for name in ("critic/loss", "critic/grad_norm", "generator/grad_norm"):
        assert one_sums[name] == other_sums[name]


def test_an_update_that_is_not_finite_is_not_applied_and_ten_in_a_row_stop_that_player(config):
    config.optimizer.name, config.optimizer.schedule, config.training.max_skipped = "adam", "constant", 3
    init, step = duel(config)
    good, bad = {"tokens": np.full((16, 4), 3, np.int32)}, {"tokens": np.full((16, 4), -1, np.int32)}
    state, _ = step(init(good), good)
    after, sums = step(state, bad)
    assert mean(sums["generator/skipped"]) == 1 and mean(sums["critic/skipped"]) == 0
    assert_trees_close(after.params["generator"], state.params["generator"])
    assert_trees_close(after.opt_state["generator"], state.opt_state["generator"])
    assert after.carry == state.carry and after.health.skipped == {"critic": 0, "generator": 1}
    assert after.params["critic"] != state.params["critic"]  # the other player goes on
    recovered, _ = step(after, good)
    assert recovered.health.skipped["generator"] == 0 and recovered.params["generator"] != after.params["generator"]
    for _ in range(2):
        after, _ = step(after, bad)
    assert after.health.skipped["generator"] == 3
    stuck, _ = step(after, good)  # too many in a row: it stays where it was, so that whoever looks later still sees it
    assert stuck.health.skipped["generator"] > 3 and stuck.params["generator"] == after.params["generator"]


@dataclass(frozen=True)
class Poisoned(Duel):
    """A player of two leaves; `poison` says what is not finite where a row of the batch begins with a 0."""

    players: tuple[str, ...] = ("generator",)
    poison: str = "batch"

    def init(self, key, batch):
        return {"generator": {"kernel": jnp.zeros(()), "bias": jnp.zeros(())}}, {}

    def loss(self, player, params, carry, batch, key, step):
        rows = batch["tokens"].astype(jnp.float32)
        bad = rows[:, :1] == 0
        if self.poison == "batch":
            rows = jnp.where(bad, jnp.nan, rows)
        # The root of 0 has no gradient: the loss itself is finite.
        root = jnp.sqrt(jnp.where(bad, params[player]["bias"] ** 2, 1.0)) if self.poison == "gradient" else 0.0
        errors = (params[player]["kernel"] - rows) ** 2 + params[player]["bias"] + root
        return Sum(jnp.sum(errors), jnp.asarray(errors.size, jnp.float32)), {}

    def remember(self, carry, metrics, params):
        return carry


@pytest.mark.usefixtures("no_mesh")
@pytest.mark.parametrize("mode", ["jit", "shard_map"])
@pytest.mark.parametrize("poison", ["batch", "gradient"])
def test_what_is_not_finite_in_one_row_on_one_device_is_never_applied_nor_averaged(config, mode, poison):
    config.training.mode, config.training.ema_decay = mode, 0.9
    init, step = duel(config, Poisoned, devices=4, poison=poison)
    good = {"tokens": np.full((16, 4), 3, np.int32)}
    bad = {"tokens": good["tokens"].copy()}
    bad["tokens"][5, 0] = 0
    state = init(good)
    before = jax.tree.map(np.asarray, state)
    after, sums = step(state, bad)
    assert mean(sums["generator/skipped"]) == 1
    if poison == "gradient":
        assert np.isfinite(mean(sums["generator/loss"])) and np.isnan(mean(sums["generator/grad_norm"]))
    for part in ("params", "opt_state", "ema"):
        assert_trees_close(getattr(after, part), getattr(before, part), rtol=0)
    moved, _ = step(after, good)
    assert moved.params["generator"]["kernel"] != before.params["generator"]["kernel"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(moved.ema))


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_moments_clipping_and_the_schedule_are_those_of_optax(config, name):
    options = config.optimizer
    options.name, options.learning_rate, options.warmup_steps, options.clip_norm = name, 0.3, 2, 1.5
    options.b1, options.b2, options.eps, options.momentum = 0.5, 0.6, 1e-2, 0.7
    rate = schedules.learning_rate(options, config.steps)
    moments = {"adam": optax.adam(rate, 0.5, 0.6, 1e-2), "sgd": optax.sgd(rate, 0.7)}[name]
    transform = optax.chain(optax.clip_by_global_norm(1.5), moments)
    init, step = duel(config)
    state = init({"tokens": np.zeros((16, 4), np.int32)})
    params = state.params["generator"]
    opt_state = transform.init(params)
    for target in (3, 0, 1, 1, 2):
        state, _ = step(state, {"tokens": np.full((16, 4), target, np.int32)})
        gradient = jax.tree.map(lambda p, target=target: 2 * (p - target), params)
        updates, opt_state = transform.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        assert_trees_close(state.params["generator"], params, rtol=1e-5)


@dataclass(frozen=True)
class Noise(Duel):
    """Two players whose losses are noise, over as many tokens as are not 0."""

    players: tuple[str, ...] = ("critic", "generator")

    def init(self, key, batch):
        return {player: {"kernel": jax.random.uniform(key)} for player in self.players}, {}

    def loss(self, player, params, carry, batch, key, step):
        noise, tokens = jax.random.uniform(key), jnp.sum(batch["tokens"] > 0).astype(jnp.float32)
        return Sum(tokens * noise * params[player]["kernel"], tokens), {"noise": Sum(noise, 1.0)}

    def remember(self, carry, metrics, params):
        return carry


def test_every_seed_step_and_player_draws_anew(config):
    draws, batch = [], {"tokens": np.ones((16, 4), np.int32)}
    for config.seed in (0, 1):
        init, step = duel(config, Noise)
        state = init(batch)
        draws.append(float(state.params["generator"]["kernel"]))
        for _ in range(2):
            state, sums = step(state, batch)
            draws += [float(sums[f"{player}/noise"].total) for player in ("critic", "generator")]
    assert len(set(draws)) == len(draws) == 10


def test_a_batch_of_padding_moves_nothing_and_is_no_divergence(config):
    init, step = duel(config, Noise)
    batch = {"tokens": np.zeros((16, 4), np.int32)}
    before = init(batch)
    after, _ = step(before, batch)
    assert after.params == before.params and after.health.skipped == {"critic": 0, "generator": 0}


def test_infinite_parameters_never_come_from_a_finite_gradient(config):
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.schedule = "sgd", 3e38, "constant"
    config.optimizer.clip_norm = 0.0
    init, step = duel(config)
    batch = {"tokens": np.full((16, 4), 300, np.int32)}
    before = init(batch)
    state, sums = step(before, batch)
    assert mean(sums["generator/skipped"]) == 1 and state.params == before.params


def test_a_loss_that_is_no_sum_over_examples_refuses_microbatches_and_shard_map(config):
    config.training.microbatches = 2
    with pytest.raises(ConfigError, match="microbatches=1"):
        duel(config, splittable=False)
    config.training.update({"microbatches": 1, "mode": "shard_map"})
    with pytest.raises(ConfigError, match="mode='jit'"):
        duel(config, splittable=False)


def test_a_program_counts_microbatches_when_it_divides_the_batch(config, spec):
    config.training.microbatches = 4
    with pytest.raises(ConfigError, match="8 devices and 4 microbatches; the nearest that does is 32"):
        program.build(config, spec)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_named_optimiser_exists_and_learns(config, name):
    config.optimizer.name, config.optimizer.schedule, config.optimizer.learning_rate = name, "constant", 0.02
    transform = update.optimizer(config.optimizer)
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    state = transform.init(params)

    def body(carry, _):
        params, state = carry
        updates, state = transform.update(jax.tree.map(lambda p: 2 * p, params), state, params)
        return (jax.tree.map(lambda p, u: p + 0.02 * u, params, updates), state), None

    (moved, _), _ = jax.lax.scan(body, (params, state), length=50)
    assert optax.tree.norm(moved) < optax.tree.norm(params)


@pytest.mark.parametrize("name", sorted(EPSILON))
def test_an_optimiser_keeps_its_own_epsilon_unless_it_is_set(config, name):
    options, params, gradient = config.optimizer, jnp.ones((2, 3)), jnp.asarray([[1e-6, 1e-4, 1.0], [0.1, 0.0, 1e-9]])
    options.name, options.clip_norm, options.momentum = name, 0.0, 0.0
    accepted = inspect.signature(getattr(optax, name)).parameters
    given = {key: options[key] for key in ("b1", "b2", "momentum", "weight_decay") if key in accepted}

    def moved(transform):
        return transform.update(gradient, transform.init(params), params)[0]

    def by_optax(**eps):
        return moved(getattr(optax, name)(1.0, **given, **eps))

    np.testing.assert_array_equal(moved(update.optimizer(options)), by_optax())
    options.eps = 0.25
    np.testing.assert_array_equal(moved(update.optimizer(options)), by_optax(eps=0.25))


@pytest.mark.parametrize("name", sorted({*DECAY} - {"novograd"}))  # which takes no mask
def test_weight_decay_is_on_matrices_only(config, name):
    config.optimizer.name, config.optimizer.weight_decay = name, 0.1
    transform = update.optimizer(config.optimizer)
    params = {
        "layers": {"kernel": jnp.ones((2, 3, 3)), "bias": jnp.ones((2, 3)), "scale": jnp.ones((2, 3))},
        "bos": jnp.ones(3),
        "mean": jnp.ones(3),
    }
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transform.update(zero, transform.init(params), params)
    moved = {
        "/".join(k.key for k in path) for path, leaf in jax.tree_util.tree_leaves_with_path(updates) if np.any(leaf)
    }
    assert moved == {"layers/kernel"}


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "rsqrt"])
def test_schedules_warm_up_to_the_peak_and_decay_to_their_end(config, name):
    options = config.optimizer
    options.schedule, options.warmup_steps, options.learning_rate, options.final_fraction = name, 10, 0.5, 0.2
    rate = schedules.learning_rate(options, 110)
    assert rate(0) == 0 and np.isclose(rate(5), 0.25) and np.isclose(rate(10), 0.5)
    later = [float(rate(step)) for step in range(10, 111)]
    assert all(a >= b for a, b in itertools.pairwise(later))
    assert np.isclose(
        later[-1], {"constant": 0.5, "linear": 0.1, "cosine": 0.1, "rsqrt": 0.5 * np.sqrt(10 / 110)}[name]
    )


def test_a_straight_line_stays_at_its_end():
    """As where a run goes on for more steps than its line was drawn over."""
    assert [float(schedules.between(2.0, 0.5, 10)(step)) for step in (0, 4, 10, 15)] == pytest.approx(
        [2, 1.4, 0.5, 0.5]
    )


STEPS = 3


def first_steps(config, spec, devices, start=None):
    """The states before and after a few updates on ragged batches, and their sums, on the host.

    start: the first state; from the seed where there is none.
    """
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, config.training.microbatches, devices)
    built = program.build(config, spec, mesh)
    placed = jax.tree.map(lambda leaf: leaf.sharding, built.state)
    state = built.init() if start is None else jax.device_put(start, placed)
    before, sums = jax.device_get(state), []
    for step in range(STEPS):
        batch = ragged_batch(spec, config.data.batch_size, step)
        state, step_sums = built.update(state, sharding.put(batch, mesh, config.data.batch_size))
        sums.append(jax.device_get(step_sums))
    return before, jax.device_get(state), sums


LAYOUTS = {
    "data": dict(mesh=dict(data=8)),
    "fsdp": dict(mesh=dict(data=1, fsdp=8)),
    "replica": dict(mesh=dict(replica=2, data=2, fsdp=2)),
    "tensor": dict(mesh=dict(data=2, fsdp=2, tensor=2, rules=((r"kernel$", (None, "tensor")),))),
    "microbatches": dict(training=dict(microbatches=4), mesh=dict(data=4), devices=4),
    "shard_map": dict(training=dict(mode="shard_map"), mesh=dict(data=8)),
    "shard_map, all axes, microbatches": dict(
        training=dict(mode="shard_map", microbatches=2), mesh=dict(replica=2, data=2, fsdp=2)
    ),
}


# Every layout of the LSTM, and of the Transformer those that split what the LSTM does not have; the rest takes longer.
CELLS = [("lstm", layout) for layout in LAYOUTS] + [
    pytest.param("transformer", layout, marks=[] if layout in ("tensor", "microbatches") else pytest.mark.slow)
    for layout in LAYOUTS
]


@pytest.fixture(scope="module")
def straight_runs():
    return {}


@pytest.mark.usefixtures("no_mesh")
@pytest.mark.parametrize(("model", "layout"), CELLS)
def test_every_layout_takes_the_step_that_one_device_takes(config, spec, model, layout, straight_runs, monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 1)  # split even the small arrays of this model
    config.model.name, config.model.dropout, config.optimizer.name = model, 0.1, "sgd"
    config.optimizer.learning_rate, config.optimizer.clip_norm = 0.3, 0.0
    if model not in straight_runs:
        straight_runs[model] = first_steps(config, spec, jax.devices()[:1])
    start, straight, sums = straight_runs[model]
    changes = LAYOUTS[layout]
    for section in ("mesh", "training"):
        config[section].update(changes.get(section, {}))
    # Once from the seed as well: to compile the initial state on every layout takes its time.
    from_seed = layout == "replica"
    devices = jax.devices()[: changes.get("devices", 8)]
    split_start, split, split_sums = first_steps(config, spec, devices, None if from_seed else start)
    assert_trees_close(split_start.params, start.params, atol=1e-6)
    assert_trees_close(split.params, straight.params, atol=1e-6)
    for one, other in zip(sums, split_sums, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].weight == other[name].weight, name
            np.testing.assert_allclose(one[name].total, other[name].total, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("model", "length", "words"), [("lstm", 16, "model.name='lstm'"), ("transformer", 18, "18")])
def test_positions_are_split_where_the_model_and_the_length_let_them(config, spec, model, length, words):
    config.model.name, config.mesh.sequence = model, 4
    with pytest.raises(ConfigError, match=rf"mesh\.sequence=4.*{words}"):
        program.build(config, replace(spec, length=length))
