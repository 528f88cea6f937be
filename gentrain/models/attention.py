"""Attention of each input to what it may see, without ever holding (length, length) scores of a long sequence."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Slots(NamedTuple):
    """Where the queries of a layer are among its keys, which hold first the context and then the tokens, in order.

    slot: of each query; first: in which its own sequence begins; prefix: slots of context, which all see.
    """

    slot: Int[Array, "batch length"]
    first: Int[Array, "batch length"]
    prefix: Int[Array, "batch"]

    def visible(self, count: int) -> Bool[Array, "batch length count"]:
        """Which of so many keys each query attends to: the context, and its own sequence up to itself."""
        keys = jnp.arange(count)[None, None, :]
        own = (self.first[:, :, None] <= keys) & (keys <= self.slot[:, :, None])
        return own | (keys < self.prefix[:, None, None])


def attend(
    query: Float[Array, "batch length heads size"],
    key: Float[Array, "batch keys kv_heads size"],
    value: Float[Array, "batch keys kv_heads size"],
    slots: Slots,
    implementation: Any,
    chunk: int,
) -> Float[Array, "batch length heads size"]:
    """softmax(query key^T / sqrt(size)) value over the visible keys, `chunk` queries at a time (0: all at once).

    Their scores, (batch, heads, chunk, keys), are all that is in memory: the backward pass makes them again, so memory
    grows with the length and not with its square (Rabe & Staats 2021).
    """

    def of_queries(query: Array, slots: Slots) -> Array:
        mask = slots.visible(key.shape[1])[:, None]
        return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)

    batch, length = query.shape[:2]
    if not 0 < chunk < length:
        return of_queries(query, slots)
    count = -(-length // chunk)  # of chunks, the last filled up

    def split(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, count * chunk - length), *((0, 0),) * (x.ndim - 2)))
        return x.reshape(batch, count, chunk, *x.shape[2:]).swapaxes(0, 1)

    @jax.checkpoint
    def of_chunk(part: tuple[Array, Array, Array]) -> Array:
        query, slot, first = part
        return of_queries(query, Slots(slot, first, slots.prefix))

    parts = jax.lax.map(of_chunk, tuple(map(split, (query, slots.slot, slots.first))))
    return parts.swapaxes(0, 1).reshape(batch, count * chunk, *query.shape[2:])[:, :length]
