"""A decoder-only Transformer: pre-RMSNorm, rotary positions, grouped-query attention, SwiGLU; a context is a prefix."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.models.attention import Slots, attend
from gentrain.models.base import Cache, SequenceModel
from gentrain.models.decoder import Decoder
from gentrain.models.layers import by_rows, keep_mask, sequence_model, unit_variance
from gentrain.models.transformer_options import Options
from gentrain.sharding import keep_rows


def build(config: ConfigDict, spec: Spec) -> SequenceModel:
    """The Transformer over the tokens of spec. Raises ConfigError for attention that these data or devices have not."""
    options, backend = Options.of(config), jax.default_backend()
    if options.attention == "cudnn" and backend != "gpu":
        raise ConfigError(f"transformer.attention='cudnn': expected 'xla', since this is no NVIDIA GPU but {backend!r}")
    if options.attention == "splash" and (spec.context_vocab or spec.length % 128):
        found = "contexts" if spec.context_vocab else f"data.length={spec.length}"
        raise ConfigError(
            f"transformer.attention='splash' takes lengths in 128s and no contexts: expected 'xla' with {found}"
        )
    return sequence_model(Transformer(options, spec))


def head_size(config: Options) -> int:
    """Numbers of a head."""
    return config.head_size or config.width // config.heads


class Place(NamedTuple):
    """Where the inputs of a layer are: what all layers share.

    slots: what each attends to; cos, sin: see `rotation`.
    """

    slots: Slots
    cos: Float[Array, "batch length 1 half"]
    sin: Float[Array, "batch length 1 half"]


def frequencies(size: int, base: float, scaling: Sequence[float | int] = ()) -> Float[Array, "half"]:
    """base^(-2k/size), k = 0, …, size/2 - 1: radians that the k-th pair turns by each position (Su et al. 2021).

    scaling: (factor, low, high, length) of Llama 3. Waves longer than length / low turn `factor` times slower, those
    shorter than length / high as before, and those between by a mean of both that is linear in length / wave.
    """
    frequency = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    if not scaling:
        return frequency
    factor, low, high, length = scaling
    turns = length * frequency / (2 * jnp.pi)  # of a pair, over the length
    kept = jnp.clip((turns - low) / (high - low), 0, 1)
    return frequency * (kept + (1 - kept) / factor)


def rotation(
    position: Int[Array, "batch length"], frequency: Float[Array, "half"]
) -> tuple[Float[Array, "batch length 1 half"], Float[Array, "batch length 1 half"]]:
    """cos and sin of the angles position * frequency."""
    angle = position[:, :, None, None] * frequency[None, None, None, :]
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Float[Array, "batch length heads size"],
    cos: Float[Array, "batch length 1 half"],
    sin: Float[Array, "batch length 1 half"],
) -> Float[Array, "batch length heads size"]:
    """Turns each pair (x_k, x_{k+size/2}) by its position's angle, so that scores see distances alone."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x)), mlp(x) = (silu(x G) * x U) D.

    causal: whether each input sees all before it. layer: its number; cache: keys and values (batch, slots, kv_heads,
    size), in which those of x are written, or None, when those of x are all there are; keys: of dropout. Zhang &
    Sennrich 2019, Ainslie et al. 2023, Shazeer 2020.
    """

    config: Options
    causal: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        layer: Int[Array, ""],
        cache: Cache | None,
        place: Place,
        keys: Array | None,
    ) -> tuple[Float[Array, "batch length width"], Cache | None]:
        config = self.config
        size = head_size(config)
        inner = config.mlp_width or -(-8 * config.width // (3 * 32)) * 32
        small = nn.initializers.variance_scaling(0.5 / config.layers, "fan_in", "normal")  # 2 * layers branches add up
        dtypes: Any = {"dtype": config.compute_dtype, "param_dtype": config.param_dtype}

        def dense(name, features, y, init=unit_variance, bias=False):
            return keep_rows(by_rows(nn.Dense(features, use_bias=bias, kernel_init=init, name=name, **dtypes), y))

        def norm(name, y):
            return nn.RMSNorm(config.norm_epsilon, name=name, **dtypes)(y)

        def split_heads(name, count, y):
            return dense(name, count * size, y, bias=config.qkv_bias).reshape(*y.shape[:2], count, size)

        def place_heads(name, count, y):
            y = split_heads(name, count, y)
            return rotate(norm(f"{name}_norm", y) if config.qk_norm else y, place.cos, place.sin)

        def drop(y, site):
            return y if keys is None else y * keep_mask(keys, 2 * layer + site, config.dropout, y.shape[1:], y.dtype)

        y = norm("attention_norm", x)
        query, key = place_heads("query", config.heads, y), place_heads("key", config.kv_heads, y)
        value = split_heads("value", config.kv_heads, y)
        if cache is not None:
            begin = place.slots.slot[:, 0]
            write = jax.vmap(jax.lax.dynamic_update_slice_in_dim, in_axes=(0, 0, 0, None))
            cache = key, value = write(cache[0], key, begin, 0), write(cache[1], value, begin, 0)
        # A few queries over a cache have little to fuse, and lengths that kernels may not take.
        implementation = "xla" if cache is not None else config.attention
        if implementation == "cudnn" and self.causal:
            implementation = "cudnn, causal"
        y = attend(query, key, value, place.slots, implementation, config.attention_chunk)
        x += drop(dense("out", config.width, y.reshape(*x.shape[:2], -1), small), 0)

        y = norm("mlp_norm", x)
        y = nn.silu(dense("gate", inner, y)) * dense("up", inner, y)
        return x + drop(dense("down", config.width, y, small), 1), cache


class Transformer(Decoder):
    """Blocks over embeddings of tokens, which carry no position: the layers turn queries and keys."""

    config: Options
    block = Block

    def last_norm(self) -> nn.Module:
        config = self.config
        return nn.RMSNorm(config.norm_epsilon, dtype=config.compute_dtype, param_dtype=config.param_dtype)

    def cache_shape(self) -> tuple[int, int]:
        return self.config.kv_heads, head_size(self.config)

    def place(self, x: Array, position: Int[Array, "batch length"], slots: Slots) -> tuple[Array, Place]:
        config = self.config
        turns = frequencies(head_size(config), config.rope_base, config.rope_scaling)
        return x, Place(slots, *rotation(position, turns))
