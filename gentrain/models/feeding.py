"""Inputs of sequence models: the token before each position, or BOS where a sequence begins; and keys of examples."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped


def shift_right(tokens: Int[Array, "batch length"], vocab: int, end: int | None) -> Int[Array, "batch length"]:
    """The inputs that teach a model `tokens`: each one's predecessor, BOS (= vocab) where a row or document begins."""
    inputs = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=vocab)
    return inputs if end is None else jnp.where(inputs == end, vocab, inputs)


def sequence_starts(batch: int, length: int) -> Bool[Array, "batch length"]:
    """Where sequences begin in rows of one sequence each: at their first position."""
    return jnp.broadcast_to(jnp.arange(length)[None, :] == 0, (batch, length))


def inputs_after(
    chosen: Shaped[Array, "batch length ..."], starts: Bool[Array, "batch length"], vocab: int
) -> Shaped[Array, "batch length ..."]:
    """The inputs of a model: what was chosen at the position before, and BOS (= vocab) where a sequence begins.

    chosen: tokens (batch, length) int, or weights (batch, length, vocab + 1) that mix tokens.
    """
    before = jnp.pad(chosen[:, :-1], ((0, 0), (1, 0), *((0, 0),) * (chosen.ndim - 2)))
    return with_bos(before, starts, vocab)


def with_bos(before: Array, starts: Bool[Array, "batch length"], vocab: int) -> Array:
    """What came before each position, tokens or weights that mix them, with BOS in its place where starts holds."""
    if before.ndim == starts.ndim:
        return jnp.where(starts, vocab, before)
    return jnp.where(starts[..., None], jax.nn.one_hot(vocab, vocab + 1)[None, None, :], before)


def example_keys(key: Array, row: Int[Any, "batch"]) -> Array:
    """A key for each example, (batch,), which depends on its row in the global batch alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, row)
