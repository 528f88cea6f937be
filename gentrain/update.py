"""One step of any objective: each player's gradient of its own loss in its own parameters; owns TrainState."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from gentrain import adapters, health, schedules
from gentrain.errors import ConfigError
from gentrain.health import Health
from gentrain.objectives.base import Objective
from gentrain.sharding import BATCH_AXES, path_name
from gentrain.sums import Metric, Sum

METRICS = {
    "<player>/loss": Metric("its own", None, "what a player minimises; losses of different objectives do not compare"),
    "<player>/grad_norm": Metric("norm", None, "global norm of the gradient, before it is clipped"),
    "<player>/learning_rate": Metric("a step", None, "of the player"),
    "<player>/skipped": Metric("share", None, "updates that were not applied: not finite, or a spike"),
    "<player>/far": Metric("share", None, f"updates whose loss was above the first by more than {health.FAR} times it"),
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All of a run that changes, and the parameters of frozen players, which checkpoints do not hold. Keys and data are
    functions of the step, so they are not here."""

    step: jax.Array
    params: dict[str, Any]  # what learns of each player: see adapters.py
    frozen: dict[str, Any]  # what does not
    opt_state: dict[str, Any]  # by player
    ema: dict[str, Any]  # averaged parameters by player, or {}
    carry: Any  # what the objective passes between steps
    health: Health  # what tells whether the run goes wrong


NOT_DECAYED = ("bias", "scale", "bos")  # last words of the paths of parameters that are no matrices


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The named optax optimiser with learning rate 1: the update itself multiplies by the rate, a function of the step.

    So a resumed run takes the learning rate that its config says, and a skipped update does not shift the schedule.
    """
    make = getattr(optax, config.name)

    def decay_mask(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf.ndim > 1 and path_name(path).rsplit("/")[-1] not in NOT_DECAYED, params
        )

    options = {name: config[name] for name in ("b1", "b2", "momentum", "weight_decay")}
    options |= {"mask": decay_mask, "weight_decay_mask": decay_mask} | ({"eps": config.eps} if config.eps else {})
    accepted = inspect.signature(make).parameters
    arguments = {name: value for name, value in options.items() if name in accepted}
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clip, make(learning_rate=1.0, **arguments))


def make_gradient(objective: Objective, microbatches: int, mesh: Mesh | None) -> Callable:
    """(player, params, carry, batch, key, step) -> the gradient of the loss's total in what learns of params[player],
    and the Sums of the loss and all metrics, both over the whole batch.

    With a mesh each device works on its own rows under shard_map and one psum adds them up.
    """

    def of_rows(player, params, carry, batch, key, step):
        def total(player_params):
            whole = adapters.join(params, {player: player_params})
            loss, metrics = objective.loss(player, whole, carry, batch, key, step)
            return loss.total, {"loss": loss, **metrics}

        return jax.grad(total, has_aux=True)(adapters.split(params[player])[0])

    def of_microbatches(player, params, carry, batch, key, step):
        if microbatches == 1:
            return of_rows(player, params, carry, batch, key, step)
        # Strided, so that every device keeps its own rows.
        parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)

        def of_part(part):
            return of_rows(player, params, carry, part, key, step)

        def add_part(sums, part):
            return jax.tree.map(jnp.add, sums, of_part(part)), None

        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], parts)))
        return jax.lax.scan(add_part, zeros, parts)[0]

    if mesh is None:
        return of_microbatches

    def of_devices(player, params, carry, batch, key, step):
        def of_own_rows(params, carry, batch, key, step):
            return jax.lax.psum(of_microbatches(player, params, carry, batch, key, step), BATCH_AXES)

        whole, rows = PartitionSpec(), PartitionSpec(BATCH_AXES)
        specs = (whole, whole, rows, whole, whole)
        # check_vma would sum the gradients of copied parameters by itself, a second time.
        mapped = jax.shard_map(of_own_rows, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False)
        return mapped(params, carry, batch, key, step)

    return of_devices


def make_move(
    config: ConfigDict, objective: Objective, transform: optax.GradientTransformation, mesh: Mesh | None
) -> Callable:
    """(state, player, batch, key) -> (state, sums): one player's step, by the gradient of its own loss in its own
    parameters. With a mesh the gradient is summed over its devices by hand."""
    gradient = make_gradient(objective, config.training.microbatches, mesh)
    learning_rate = schedules.learning_rate(config.optimizer, config.steps)

    def move(state: TrainState, player: str, batch, key) -> tuple[TrainState, dict[str, Sum]]:
        grads, sums = gradient(player, adapters.join(state.frozen, state.params), state.carry, batch, key, state.step)
        weight = sums["loss"].weight
        grads = jax.tree.map(lambda g: g / jnp.where(weight > 0, weight, 1).astype(g.dtype), grads)
        params, opt_state = state.params[player], state.opt_state[player]
        rate = learning_rate(state.step) * objective.rate(player)
        updates, new_opt_state = transform.update(grads, opt_state, params)
        updates = jax.tree.map(lambda u: (rate * u).astype(u.dtype), updates)
        norm, loss = optax.tree.norm(grads), sums["loss"].total / jnp.where(weight > 0, weight, 1)
        finite = jnp.isfinite(norm) & jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(updates))
        spike = health.is_spike(state.health.losses[player], loss, config.training.spike_sigma)
        good = finite & ~spike & (state.health.skipped[player] < config.training.max_skipped)
        new_health, far = health.observe(state.health, player, loss, good, state.step)
        state = replace(
            state,
            params={**state.params, player: select(good, optax.apply_updates(params, updates), params)},
            opt_state={**state.opt_state, player: select(good, new_opt_state, opt_state)},
            health=new_health,
        )
        one = jnp.ones(())
        numbers = {"grad_norm": norm, "learning_rate": rate * one, "skipped": 1.0 - good, "far": far * one}
        extra = {name: Sum(number, one) for name, number in numbers.items()}
        return state, {f"{player}/{name}": value for name, value in (sums | extra).items()}

    return move


def build(config: ConfigDict, objective: Objective, mesh: Mesh) -> tuple[Callable, Callable]:
    """(init, update) of an objective: init(batch) -> TrainState; update(state, batch) -> (TrainState, dict of Sums).

    Both are pure and not yet compiled. An update that is not finite, or that training.spike_sigma rules out, is not
    applied: parameters and optimiser state stay as they were and the update is counted. After training.max_skipped of
    them in a row a player no longer moves.
    Raises ConfigError for microbatches or shard_map with an objective whose loss is not a sum over examples.
    """
    training = config.training
    if not objective.splittable and (training.microbatches > 1 or training.mode == "shard_map"):
        raise ConfigError(
            f"the loss of {config.objective.name!r} is not a sum over examples:"
            " set training.microbatches=1 and training.mode='jit'"
        )
    transform = optimizer(config.optimizer)
    move = make_move(config, objective, transform, mesh if training.mode == "shard_map" else None)

    def init(batch) -> TrainState:
        params, carry = objective.init(jax.random.fold_in(jax.random.key(config.seed), 0), batch)
        parts = {player: adapters.split(leaves) for player, leaves in params.items() if player not in objective.frozen}
        learned = {player: part for player, (part, _) in parts.items()}
        kept = {player: rest for player, (_, rest) in parts.items() if rest}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=learned,
            frozen=kept | {player: params[player] for player in objective.frozen},
            opt_state={player: transform.init(leaves) for player, leaves in learned.items()},
            ema=jax.tree.map(jnp.copy, learned) if training.ema_decay else {},
            carry=carry,
            health=health.begin(list(learned)),
        )

    def update(state: TrainState, batch) -> tuple[TrainState, dict[str, Sum]]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 1), state.step)
        drawn = objective.draw(adapters.join(state.frozen, state.params), batch, key, state.step)
        batch, totals = {**batch, **drawn}, dict[str, Sum]()
        for number, player in enumerate(objective.players):
            state, sums = move(state, player, batch, jax.random.fold_in(key, number))
            totals = add_sums(totals, sums)
        applied = jnp.all(jnp.stack([totals[f"{player}/skipped"].total == 0 for player in objective.players]))
        finite = jnp.all(jnp.stack([jnp.isfinite(totals[f"{player}/loss"].total) for player in objective.players]))
        far = jnp.any(jnp.stack([totals[f"{player}/far"].total > 0 for player in objective.players]))
        remembered = objective.remember(state.carry, totals, adapters.join(state.frozen, state.params))
        carry = select(applied, remembered, state.carry)
        decay = training.ema_decay

        def average(mean, leaf):
            return (decay * mean + (1 - decay) * leaf).astype(mean.dtype)

        ema = jax.tree.map(average, state.ema, state.params) if state.ema else {}
        new_health = health.count_step(state.health, applied, finite & ~far)
        return replace(state, step=state.step + 1, ema=ema, carry=carry, health=new_health), totals

    return init, update


def select(condition: jax.Array, new: Any, old: Any) -> Any:
    """The new tree where the condition holds, else the old one."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def add_sums(one: dict[str, Sum], other: dict[str, Sum]) -> dict[str, Sum]:
    """The Sums of both; those of the same name are added up."""
    added = dict(one)
    for name, value in other.items():
        added[name] = jax.tree.map(jnp.add, one[name], value) if name in one else value
    return added
