"""Does a model that is learned from answer the same whichever way it is asked? Found out before anything is learned."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from gentrain import decode, sharding
from gentrain.errors import ConfigError
from gentrain.losses import token_nll
from gentrain.models.base import Params, SequenceModel, token_nlls
from gentrain.objectives import lessons
from gentrain.objectives.base import Batch

ROWS = 4  # that are asked about, or as many as the devices of the mesh need
SHARE = 0.5  # of a device's memory that all parameters may take, or it is not asked alone


def check(model: SequenceModel, params: Params, batch: Batch, mesh: Mesh, most: float) -> None:
    """Raises ConfigError where two ways of asking give a token of the batch probabilities more than `most` nats apart,
    as a cache that is not kept well does, or a mesh over which something is not summed."""
    mask, answers = ask(model, params, batch, mesh)
    (first, base), *others = answers.items()
    for name, answer in others:
        apart = np.where(mask, np.abs(answer - base), 0.0)
        if not apart.max(initial=0.0) <= most:  # nor where one is not a number
            row, position = np.unravel_index(np.argmax(np.nan_to_num(apart, nan=np.inf)), apart.shape)
            raise ConfigError(
                f"the teacher's answers differ by {apart[row, position]:.3g} nats at token {position} of row {row},"
                f" {first} and {name}: expected at most distillation.preflight={most:g}; sound teachers were"
                " within 5e-5 in float32 and 0.3 in bfloat16"
            )


def ask(model: SequenceModel, params: Params, batch: Batch, mesh: Mesh) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The mask of the first rows, and -log P of each of their tokens, nats (rows, length), by the way of asking."""
    count = min(sharding.round_up(mesh, ROWS), len(batch["row"]))

    def take(batch):
        return {name: array[:count] for name, array in batch.items()}

    rows = sharding.compile_on(mesh, take)(batch)
    answers = {"side by side": sharding.compile_on(mesh, side_by_side(model))(params, rows)}
    answers["step by step"] = sharding.compile_on(mesh, step_by_step(model))(params, rows)
    if lessons.HIDDEN in rows:
        answers["as it was written down"] = sharding.compile_on(mesh, from_hidden(model))(params, rows)
    if mesh.size > 1 and fits(params):
        alone = sharding.one_device()
        whole = jax.tree.map(own, sharding.compile_on(mesh, lambda params: params)(params))
        answers["on one device"] = sharding.compile_on(alone, side_by_side(model))(whole, jax.tree.map(own, rows))
    return np.asarray(own(rows["mask"])), {name: np.asarray(own(answer)) for name, answer in answers.items()}


def own(array: Array) -> Array:
    """This process's copy of an array that every device has."""
    return array.addressable_data(0)


def fits(params: Params) -> bool:
    """Whether one device has room for all of them beside its part."""
    stats = jax.local_devices()[0].memory_stats() or {}
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    return size <= SHARE * stats.get("bytes_limit", np.inf)


def side_by_side(model: SequenceModel) -> Any:
    """All positions at once."""

    def answer(params, rows):
        tokens = rows["tokens"]
        return token_nlls(model, params, model.inputs(tokens), tokens, rows.get("context"))

    return answer


def step_by_step(model: SequenceModel) -> Any:
    """As it draws: position after position, from its cache."""

    def answer(params, rows) -> Float[Array, "rows length"]:
        tokens = rows["tokens"]
        count, length = tokens.shape
        here = decode.fold(model, params, count * length)

        def advance(cache, both: tuple[Int[Array, "rows"], Int[Array, "rows"]]):
            cache, logits = model.step(here, cache, both[0])
            return cache, token_nll(logits[:, None], both[1][:, None])[0][:, 0]

        cache = model.start(here, count, length, rows.get("context"))
        return jax.lax.scan(advance, cache, (model.inputs(tokens).T, tokens.T))[1].T

    return answer


def from_hidden(model: SequenceModel) -> Any:
    """From what is beside the batch, by the head."""

    def answer(params, rows):
        logits = model.logits(params, rows[lessons.HIDDEN])
        return token_nll(logits.astype(jnp.float32), rows["tokens"])[0]

    return answer
