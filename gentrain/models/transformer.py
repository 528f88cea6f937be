"""A decoder-only Transformer: pre-RMSNorm, rotary positions, grouped-query attention, SwiGLU; a context is a prefix."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.models.attention import Slots
from gentrain.models.base import Cache, SequenceModel
from gentrain.models.decoder import Decoder, Layer, require_attention
from gentrain.models.layers import sequence_model
from gentrain.models.transformer_options import Options


def build(config: ConfigDict, spec: Spec) -> SequenceModel:
    """The Transformer over the tokens of spec. Raises ConfigError for attention that these data or devices have not."""
    require_attention(config, spec)
    return sequence_model(Transformer(Options.of(config), spec))


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
    # Rounded twice, as published models have it: at position 2,048 an angle shows the last bit of a frequency.
    waves = (float(base) ** (np.arange(0, size, 2) / size)).astype(np.float32)
    frequency = jnp.asarray(np.float32(1) / waves)
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


class Block(Layer):
    """x + attention(norm(x)), then x + mlp(norm(x)), mlp(x) = (silu(x G) * x U) D.

    Zhang & Sennrich 2019, Ainslie et al. 2023, Shazeer 2020.
    """

    config: Options

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
        dtypes: Any = {"dtype": config.compute_dtype, "param_dtype": config.param_dtype}

        def norm(name, y):
            return nn.RMSNorm(config.norm_epsilon, name=name, **dtypes)(y)

        def split_heads(name, count, y):
            return self.dense(name, count * size, y, bias=config.qkv_bias).reshape(*y.shape[:2], count, size)

        def place_heads(name, count, y):
            y = split_heads(name, count, y)
            return rotate(norm(f"{name}_norm", y) if config.qk_norm else y, place.cos, place.sin)

        y = norm("attention_norm", x)
        query, key = place_heads("query", config.heads, y), place_heads("key", config.kv_heads, y)
        value = split_heads("value", config.kv_heads, y)
        y, cache = self.attend(query, key, value, cache, place.slots)
        x += self.drop(self.dense_out("out", y), keys, 2 * layer)

        y = norm("mlp_norm", x)
        y = nn.silu(self.dense("gate", inner, y)) * self.dense("up", inner, y)
        return x + self.drop(self.dense_out("down", y), keys, 2 * layer + 1), cache


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
