"""Attention of each input to what it may see, without ever holding (length, length) scores of a long sequence."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain.models.base import by_chunks
from gentrain.sharding import by_sequence


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
    grows with the length and not with its square (Rabe & Staats 2021). Where mesh.sequence splits the positions, each
    device has the queries of its own and all keys.
    """

    def of_own(query: Array, slot: Array, first: Array, key: Array, value: Array, prefix: Array) -> Array:
        def of_queries(query: Array, slot: Array, first: Array) -> Array:
            mask = Slots(slot, first, prefix).visible(key.shape[1])[:, None]
            return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)

        if 0 < chunk < query.shape[1]:
            return by_chunks(of_queries, chunk, query, slot, first)
        return of_queries(query, slot, first)

    return by_sequence(of_own, (query, slots.slot, slots.first), (key, value), slots.prefix)
