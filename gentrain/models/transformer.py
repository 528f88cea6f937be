"""A decoder-only Transformer: pre-RMSNorm, rotary positions, grouped-query attention, SwiGLU; a context is a prefix."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.models.base import Cache, SequenceModel
from gentrain.models.layers import TokenModel, keep_mask, remat, sequence_model, unit_variance
from gentrain.models.transformer_options import Options
from gentrain.sharding import keep_rows


def build(config: ConfigDict, spec: Spec) -> SequenceModel:
    """The Transformer over the tokens of spec. Raises ConfigError for fused attention without a GPU."""
    options, backend = Options.of(config), jax.default_backend()
    if options.attention == "cudnn" and backend != "gpu":
        raise ConfigError(f"transformer.attention='cudnn': expected 'xla', since this is no NVIDIA GPU but {backend!r}")
    return sequence_model(Transformer(options, spec))


class Place(NamedTuple):
    """Where the inputs of a layer are: what all layers share.

    begin (batch,): the slot of the first; visible (batch, length, slots): what each attends to;
    cos, sin (batch, length, 1, size/2): of the angles position * base^(-2k/size).
    """

    begin: Array
    visible: Array
    cos: Array
    sin: Array


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turns each pair (x_k, x_{k+size/2}) by its position's angle, so that scores see distances alone.

    x (batch, length, heads, size). Su et al. 2021.
    """
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x)), mlp(x) = (silu(x G) * x U) D.

    x (batch, length, width); layer: its number; cache: keys and values (batch, slots, kv_heads, size), in which those
    of x are written, or None, when those of x are all there are.
    Zhang & Sennrich 2019, Ainslie et al. 2023, Shazeer 2020.
    """

    config: Options

    @nn.compact
    def __call__(self, x: Array, layer: Array, cache: Cache | None, place: Place, keys: Array | None):
        config = self.config
        size = config.width // config.heads
        inner = config.mlp_width or -(-8 * config.width // (3 * 32)) * 32
        small = nn.initializers.variance_scaling(0.5 / config.layers, "fan_in", "normal")  # 2 * layers branches add up
        dtypes = {"dtype": config.compute_dtype, "param_dtype": config.param_dtype}

        def dense(name, features, y, init=unit_variance):
            return keep_rows(nn.Dense(features, use_bias=False, kernel_init=init, name=name, **dtypes)(y))

        def heads(name, count, y):
            return dense(name, count * size, y).reshape(*y.shape[:2], count, size)

        def dropped(y, site):
            return y if keys is None else y * keep_mask(keys, 2 * layer + site, config.dropout, y.shape[1:], y.dtype)

        y = nn.RMSNorm(name="attention_norm", **dtypes)(x)
        query = rotate(heads("query", config.heads, y), place.cos, place.sin)
        key = rotate(heads("key", config.kv_heads, y), place.cos, place.sin)
        value = heads("value", config.kv_heads, y)
        if cache is not None:
            write = jax.vmap(jax.lax.dynamic_update_slice_in_dim, in_axes=(0, 0, 0, None))
            cache = key, value = write(cache[0], key, place.begin, 0), write(cache[1], value, place.begin, 0)
        # A few queries over a cache have little to fuse, and lengths that cuDNN may not take.
        fused: Any = config.attention if cache is None else "xla"
        y = jax.nn.dot_product_attention(query, key, value, mask=place.visible[:, None], implementation=fused)
        x += dropped(dense("out", config.width, y.reshape(x.shape), small), 0)

        y = nn.RMSNorm(name="mlp_norm", **dtypes)(x)
        y = nn.silu(dense("gate", inner, y)) * dense("up", inner, y)
        return x + dropped(dense("down", config.width, y, small), 1), cache


class Transformer(TokenModel):
    """Slots hold first the context, seen by all, then the tokens, which see their own sequence up to themselves."""

    def setup(self) -> None:
        super().setup()
        config = self.config
        self.layers = nn.scan(
            remat(Block, config.remat, scanned=config.scan_layers),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, 1, nn.broadcast, nn.broadcast),
            out_axes=1,
            length=config.layers,
            unroll=1 if config.scan_layers else config.layers,
        )(config)
        self.norm = nn.RMSNorm(dtype=config.compute_dtype, param_dtype=config.param_dtype)

    def hidden(self, inputs: Array, context: Array | None, keys: Array | None) -> Array:
        x, prefix = self.read_tokens(inputs), self.read_context(context)
        before = 0 if prefix is None else prefix.shape[1]
        x = x if prefix is None else jnp.concatenate([prefix, x], axis=1)
        keys = keys if self.config.dropout else None
        if keys is not None:
            x *= keep_mask(keys, 2 * self.config.layers, self.config.dropout, x.shape[1:], x.dtype)
        slot = jnp.broadcast_to(jnp.arange(x.shape[1])[None, :], x.shape[:2])
        bos = jnp.pad(self.begins(inputs), ((0, 0), (before, 0)))
        first = jax.lax.cummax(jnp.where(bos, slot, before), axis=1)
        x, _ = self.run(x, slot, first, jnp.full(x.shape[:1], before), keys=keys)
        return x[:, before:]

    def start(self, batch: int, length: int, context: Array | None = None) -> Cache:
        config, prefix = self.config, self.read_context(context)
        before = 0 if prefix is None else prefix.shape[1]
        shape = (batch, config.layers, before + length, config.kv_heads, config.width // config.heads)
        layers = (jnp.zeros(shape, config.compute_dtype),) * 2
        at = jnp.full((batch,), before, jnp.int32)
        if prefix is not None:
            slot = jnp.broadcast_to(jnp.arange(before)[None, :], (batch, before))
            _, layers = self.run(prefix, slot, jnp.full_like(slot, before), at, layers)
        first = jnp.full((batch, before + length), before, jnp.int32)
        return {"layers": layers, "first": first, "index": jnp.zeros_like(at), "prefix": at}

    def step(self, cache: Cache, token: Array) -> tuple[Cache, Array]:
        cache, logits = self.extend(cache, token[:, None], cache["index"])
        return cache, logits[:, 0]

    def extend(self, cache: Cache, inputs: Array, at: Array) -> tuple[Cache, Array]:
        prefix, first, count = cache["prefix"], cache["first"], inputs.shape[1]
        begin = prefix + at
        slot = begin[:, None] + jnp.arange(count)[None, :]
        before = jnp.take_along_axis(first, jnp.maximum(begin - 1, 0)[:, None], axis=1)
        own = jax.lax.cummax(jnp.where(self.begins(inputs), slot, before), axis=1)
        x, layers = self.run(self.read_tokens(inputs), slot, own, prefix, cache["layers"])
        first = jax.vmap(jax.lax.dynamic_update_slice_in_dim, in_axes=(0, 0, 0, None))(first, own, begin, 0)
        return {"layers": layers, "first": first, "index": at + count, "prefix": prefix}, self.logits(x)

    def run(self, x: Array, slot: Array, first: Array, prefix: Array, layers: Cache | None = None, keys=None):
        """All layers over x (batch, length, width) -> (x normed, their caches).

        slot, first (batch, length): of each input and of its sequence's first; prefix (batch,): slots of context.
        """
        slots = jnp.arange(x.shape[1] if layers is None else layers[0].shape[2])[None, None, :]
        own = (first[:, :, None] <= slots) & (slots <= slot[:, :, None])
        # Counted from the beginning of the sequence, or the distance to the context would tell how much came before.
        position = prefix[:, None] + slot - first
        size = self.config.width // self.config.heads
        wave = self.config.rope_base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
        angle = position[:, :, None, None] * wave[None, None, None, :]
        place = Place(slot[:, 0], own | (slots < prefix[:, None, None]), jnp.cos(angle), jnp.sin(angle))
        x, layers = self.layers(x, jnp.arange(self.config.layers), layers, place, keys)
        return self.norm(x), layers
