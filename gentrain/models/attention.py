"""Attention of each input to what it may see, without ever holding (length, length) scores of a long sequence."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain.models.base import by_chunks
from gentrain.sharding import by_sequence, platform


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
    implementation: str,
    chunk: int,
) -> Float[Array, "batch length heads size"]:
    """softmax(query key^T / sqrt(size)) value over the visible keys, `chunk` queries at a time (0: all at once).

    Their scores, (batch, heads, chunk, keys), are all that is in memory: the backward pass makes them again, so memory
    grows with the length and not with its square (Rabe & Staats 2021). Where mesh.sequence splits the positions, each
    device has the queries of its own and all keys. implementation: that of the option `attention`, or 'cudnn, causal'
    where each query sees all keys up to itself: without a mask, and without chunks.
    """
    plain: Any = "cudnn" if implementation.startswith("cudnn") else "xla"
    kernel = implementation == "splash" and platform() == "tpu" and query.shape[1] % 128 == 0

    def of_own(query: Array, slot: Array, first: Array, key: Array, value: Array, prefix: Array) -> Array:
        if query.shape[1] == key.shape[1]:  # and not a device's own queries alone
            if kernel:
                return splash(query, key, value, first)
            if implementation == "cudnn, causal":
                return jax.nn.dot_product_attention(query, key, value, is_causal=True, implementation="cudnn")

        def of_queries(query: Array, slot: Array, first: Array) -> Array:
            mask = Slots(slot, first, prefix).visible(key.shape[1])[:, None]
            return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=plain)

        if 0 < chunk < query.shape[1]:
            return by_chunks(of_queries, chunk, query, slot, first)
        return of_queries(query, slot, first)

    return by_sequence(of_own, (query, slots.slot, slots.first), (key, value), slots.prefix, kernel)


def splash(
    query: Float[Array, "batch length heads size"],
    key: Float[Array, "batch length kv_heads size"],
    value: Float[Array, "batch length kv_heads size"],
    first: Int[Array, "batch length"],
    interpret: bool = False,
) -> Float[Array, "batch length heads size"]:
    """What `attend` gives where all are tokens in order, by JAX's kernel for TPUs, which skips what no query sees.

    first: the slot in which the sequence of each begins. Lengths are multiples of 128. interpret: not on a TPU.
    """
    # Imported where it runs: elsewhere a start would take longer for nothing.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask

    length, heads, size = query.shape[1:]
    block = math.gcd(length, 512)
    sizes = splash_kernel.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block, block_kv_dkv=block,
        block_kv_dkv_compute=block, use_fused_bwd_kernel=True,
    )  # fmt: skip
    mask = splash_mask.MultiHeadMask([splash_mask.CausalMask((length, length))] * heads)
    kernel = splash_kernel.make_splash_mha_single_device(mask, block_sizes=sizes, interpret=interpret)

    def of_row(query: Array, key: Array, value: Array, first: Array) -> Array:
        query, key, value = (jnp.swapaxes(x, 0, 1) for x in (query * size**-0.5, key, value))
        return jnp.swapaxes(kernel(query, key, value, splash_kernel.SegmentIds(first, first)), 0, 1)

    return jax.vmap(of_row)(query, key, value, first)
