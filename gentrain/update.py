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

from gentrain import schedules
from gentrain.errors import ConfigError, Diverged
from gentrain.metrics import Sum
from gentrain.objectives import Objective
from gentrain.sharding import BATCH_AXES, path_name


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All of a run that changes: what a checkpoint holds. Keys and data are functions of the step, so they are not
    here."""

    step: jax.Array
    params: dict[str, Any]  # by player
    opt_state: dict[str, Any]
    ema: dict[str, Any]  # averaged parameters, or {}
    carry: Any  # what the objective passes between steps
    skipped: dict[str, jax.Array]  # non-finite updates in a row, by player


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The named optax optimiser with learning rate 1: the update multiplies by the rate, a function of the step,
    itself.

    So a resumed run takes the learning rate that its config says, and a skipped update does not shift the schedule.
    """
    make = getattr(optax, config.name)
    known = {name: config[name] for name in ("b1", "b2", "eps", "momentum", "weight_decay")}
    decays = lambda params: jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim > 1 and path_name(path).rsplit("/")[-1] not in ("bias", "scale", "bos"), params
    )
    takes = inspect.signature(make).parameters
    arguments = {name: value for name, value in (known | {"mask": decays}).items() if name in takes}
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clip, make(learning_rate=1.0, **arguments))


def _gradient(objective: Objective, microbatches: int, mesh: Mesh | None) -> Callable:
    """(player, params, carry, batch, key, step) -> gradient of the total and the sums it goes with, over the whole
    batch.

    With a mesh each device works on its own rows under shard_map and one psum adds them up.
    """

    def whole(player, params, carry, batch, key, step):
        def total(own):
            loss, extra = objective.loss(player, {**params, player: own}, carry, batch, key, step)
            return loss.total, {"loss": loss, **extra}

        return jax.grad(total, has_aux=True)(params[player])

    def split(player, params, carry, batch, key, step):
        if microbatches == 1:
            return whole(player, params, carry, batch, key, step)
        # Strided, so that every device keeps its own rows.
        parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
        one = lambda part: whole(player, params, carry, part, key, step)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts)))
        return jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, one(part)), None), zeros, parts)[0]

    if mesh is None:
        return split

    def mapped(player, params, carry, batch, key, step):
        def local(params, carry, batch, key, step):
            return jax.lax.psum(split(player, params, carry, batch, key, step), BATCH_AXES)

        whole_spec, rows_spec = PartitionSpec(), PartitionSpec(BATCH_AXES)
        specs = (whole_spec, whole_spec, rows_spec, whole_spec, whole_spec)
        # check_vma would sum the gradients of copied parameters by itself, a second time.
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=whole_spec, check_vma=False)(
            params, carry, batch, key, step
        )

    return mapped


def build(config: ConfigDict, objective: Objective, mesh: Mesh) -> tuple[Callable, Callable]:
    """(init, update) of an objective: init(batch) -> TrainState; update(state, batch) -> (TrainState, dict of Sums).

    Both are pure and not yet compiled. An update that is not finite is not applied: parameters and optimiser
    state stay as they were, it is counted, and after training.max_skipped in a row a player no longer moves.
    Raises ConfigError for microbatches or shard_map with an objective whose loss is not a sum over examples.
    """
    training = config.training
    if not objective.splittable and (training.microbatches > 1 or training.mode == "shard_map"):
        raise ConfigError(
            f"the loss of {config.objective.name!r} is not a sum over examples:"
            " set training.microbatches=1 and training.mode='jit'"
        )
    gradient = _gradient(objective, training.microbatches, mesh if training.mode == "shard_map" else None)
    learning_rate = schedules.learning_rate(config.optimizer, config.steps)
    tx = optimizer(config.optimizer)

    def init(batch) -> TrainState:
        params, carry = objective.init(jax.random.fold_in(jax.random.key(config.seed), 0), batch)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state={player: tx.init(own) for player, own in params.items()},
            ema=jax.tree.map(jnp.copy, params) if training.ema_decay else {},
            carry=carry,
            skipped={player: jnp.zeros((), jnp.int32) for player in params},
        )

    def move(state: TrainState, player: str, batch, key) -> tuple[TrainState, dict[str, Sum]]:
        grads, sums = gradient(player, state.params, state.carry, batch, key, state.step)
        weight = sums["loss"].weight
        grads = jax.tree.map(lambda g: g / jnp.where(weight > 0, weight, 1).astype(g.dtype), grads)
        own, opt_state, rate = state.params[player], state.opt_state[player], learning_rate(state.step)
        rate = rate * config.optimizer.critic_scale if player != "generator" else rate
        updates, new_opt_state = tx.update(grads, opt_state, own)
        updates = jax.tree.map(lambda u: (rate * u).astype(u.dtype), updates)
        norm, skipped = optax.tree.norm(grads), state.skipped[player]
        finite = jnp.isfinite(norm) & jnp.isfinite(sums["loss"].total) & jnp.isfinite(optax.tree.norm(updates))
        good = finite & (skipped < training.max_skipped)
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
        state = replace(
            state,
            params={**state.params, player: keep(optax.apply_updates(own, updates), own)},
            opt_state={**state.opt_state, player: keep(new_opt_state, opt_state)},
            skipped={**state.skipped, player: jnp.where(good, 0, skipped + 1)},
        )
        one = jnp.ones(())
        extra = {"grad_norm": Sum(norm, one), "learning_rate": Sum(rate * one, one), "skipped": Sum(1.0 - good, one)}
        return state, {f"{player}/{name}": value for name, value in (sums | extra).items()}

    def update(state: TrainState, batch) -> tuple[TrainState, dict[str, Sum]]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 1), state.step)
        moves: dict[str, Sum] = {}
        for number, player in enumerate(objective.players):
            state, sums = move(state, player, batch, jax.random.fold_in(key, number))
            moves |= {
                name: jax.tree.map(jnp.add, moves[name], value) if name in moves else value
                for name, value in sums.items()
            }
        good = jnp.all(
            jnp.stack([moves[f"{player}/skipped"].total == 0 for player in dict.fromkeys(objective.players)])
        )
        remembered = objective.remember(state.carry, moves, state.params)
        decay = training.ema_decay
        average = lambda e, p: (decay * e + (1 - decay) * p).astype(e.dtype)
        ema = jax.tree.map(average, state.ema, state.params) if state.ema else {}
        carry = jax.tree.map(lambda new, old: jnp.where(good, new, old), remembered, state.carry)
        return replace(state, step=state.step + 1, ema=ema, carry=carry), moves

    return init, update


def check_finite(state: TrainState, max_skipped: int) -> None:
    """Raises Diverged once a player was skipped too many times in a row; its parameters are the last good ones."""
    step, players = jax.device_get((state.step, state.skipped))
    for player, skipped in players.items():
        if skipped >= max_skipped:
            raise Diverged(
                f"{player}: {skipped} updates in a row were not finite, from step {step - skipped} on, and none was"
                " applied; lower optimizer.learning_rate or set optimizer.clip_norm and run again: it goes on from the"
                " last checkpoint"
            )
