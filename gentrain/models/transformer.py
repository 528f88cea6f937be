"""A decoder-only Transformer: pre-RMSNorm, rotary positions, grouped-query attention, SwiGLU; a context is a prefix."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.models.attention import Slots, attend
from gentrain.models.base import Cache, Inputs, SequenceModel
from gentrain.models.layers import TokenModel, by_rows, keep_mask, remat, sequence_model, unit_variance
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


class Transformer(TokenModel):
    """Slots hold first the context, seen by all, then the tokens, which see their own sequence up to themselves.

    A cache has `layers`, keys and values of every layer; `first`, the slot in which the sequence of each slot begins;
    `index`, how many tokens it holds; `prefix`, how many slots the context takes.
    """

    config: Options

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
        )(config, self.spec.one_document and not self.context_vocab)
        self.norm = nn.RMSNorm(config.norm_epsilon, dtype=config.compute_dtype, param_dtype=config.param_dtype)

    def hidden(self, inputs: Inputs, context: Array | None, keys: Array | None) -> Float[Array, "batch length width"]:
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
        shape = (batch, config.layers, before + length, config.kv_heads, head_size(config))
        layers = (jnp.zeros(shape, config.compute_dtype),) * 2
        at = jnp.full((batch,), before, jnp.int32)
        if prefix is not None:
            slot = jnp.broadcast_to(jnp.arange(before)[None, :], (batch, before))
            _, layers = self.run(prefix, slot, jnp.full_like(slot, before), at, layers)
        first = jnp.full((batch, before + length), before, jnp.int32)
        return {"layers": layers, "first": first, "index": jnp.zeros_like(at), "prefix": at}

    def step(self, cache: Cache, token: Shaped[Array, "batch ..."]) -> tuple[Cache, Float[Array, "batch vocab"]]:
        cache, logits = self.extend(cache, token[:, None], cache["index"])
        return cache, logits[:, 0]

    def extend(
        self, cache: Cache, inputs: Inputs, at: Int[Array, "batch"]
    ) -> tuple[Cache, Float[Array, "batch length vocab"]]:
        prefix, first, count = cache["prefix"], cache["first"], inputs.shape[1]
        begin = prefix + at
        slot = begin[:, None] + jnp.arange(count)[None, :]
        before = jnp.take_along_axis(first, jnp.maximum(begin - 1, 0)[:, None], axis=1)
        piece_first = jax.lax.cummax(jnp.where(self.begins(inputs), slot, before), axis=1)
        x, layers = self.run(self.read_tokens(inputs), slot, piece_first, prefix, cache["layers"])
        first = jax.vmap(jax.lax.dynamic_update_slice_in_dim, in_axes=(0, 0, 0, None))(first, piece_first, begin, 0)
        return {"layers": layers, "first": first, "index": at + count, "prefix": prefix}, self.logits(x)

    def run(
        self,
        x: Float[Array, "batch length width"],
        slot: Int[Array, "batch length"],
        first: Int[Array, "batch length"],
        prefix: Int[Array, "batch"],
        layers: Cache | None = None,
        keys: Array | None = None,
    ) -> tuple[Float[Array, "batch length width"], Cache]:
        """All layers over x -> (x normed, their caches).

        slot, first: the slots of each input and of its sequence's first; prefix: slots of context.
        """
        # Counted from the beginning of the sequence, or the distance to the context would tell how much came before.
        position = prefix[:, None] + slot - first
        config = self.config
        place = Place(
            Slots(slot, first, prefix),
            *rotation(position, frequencies(head_size(config), config.rope_base, config.rope_scaling)),
        )
        x, layers = self.layers(x, jnp.arange(self.config.layers), layers, place, keys)
        return self.norm(x), layers
