"""What the models of attention share: a stack of layers over the tokens of a row, side by side or from a cache."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped
from ml_collections import ConfigDict

from gentrain.adapters import ADAPTER
from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.models.attention import Slots, attend
from gentrain.models.base import Cache, Inputs
from gentrain.models.base_options import DecoderOptions
from gentrain.models.layers import TokenModel, by_rows, flat, keep_mask, remat, unit_variance
from gentrain.sharding import keep_rows, sequence_parts


def require_attention(config: ConfigDict, spec: Spec) -> None:
    """Raises ConfigError for attention, in a network's section, that these data or devices have not."""
    family, backend = config.name, jax.default_backend()
    attention = config[family].attention
    if attention == "cudnn" and backend != "gpu":
        raise ConfigError(f"{family}.attention='cudnn': expected 'xla', since this is no NVIDIA GPU but {backend!r}")
    if attention == "splash" and (spec.context_vocab or spec.length % 128):
        found = "contexts" if spec.context_vocab else f"data.length={spec.length}"
        raise ConfigError(
            f"{family}.attention='splash' takes lengths in 128s and no contexts: expected 'xla' with {found}"
        )


class Adapter(nn.Module):
    """scale y A B, A of so many columns as the rank; 0 at the start, where B is. Hu et al. 2021."""

    features: int
    rank: int
    scale: float
    param_dtype: str

    @nn.compact
    def __call__(self, y: Float[Array, "batch length width"]) -> Float[Array, "batch length features"]:
        down = self.param("down", unit_variance, (y.shape[-1], self.rank), self.param_dtype)
        up = self.param("up", nn.initializers.zeros, (self.rank, self.features), self.param_dtype)
        x = flat(y) if sequence_parts() == 1 else y
        x = self.scale * (x @ down.astype(y.dtype)) @ up.astype(y.dtype)
        return keep_rows(x.reshape(*y.shape[:-1], self.features))


class Layer(nn.Module):
    """A layer of a Decoder, by what each of them does.

    It is called with x; its number; its cache, keys and values (batch, slots, kv_heads, size) in which those of x are
    written, or None, when those of x are all there are; what all layers share; and the keys of dropout. It returns x
    and the cache. causal: whether each input sees all before it.
    """

    config: DecoderOptions
    causal: bool

    def dense(self, name: str, features: int, y: Array, init: Any = unit_variance, bias: bool = False) -> Array:
        """y W + b, row by row, and what an adapter of it adds."""
        config = self.config
        dtypes: Any = {"dtype": config.compute_dtype, "param_dtype": config.param_dtype}
        x = keep_rows(by_rows(nn.Dense(features, use_bias=bias, kernel_init=init, name=name, **dtypes), y))
        if config.lora_rank == 0 or name not in (config.lora_targets or config.maps):
            return x
        scale = config.lora_alpha / config.lora_rank
        return x + Adapter(features, config.lora_rank, scale, config.param_dtype, name=f"{name}{ADAPTER}")(y)

    def dense_out(self, name: str, y: Array, bias: bool = False) -> Array:
        """The end of a branch; 2 * layers of them add up."""
        small = nn.initializers.variance_scaling(0.5 / self.config.layers, "fan_in", "normal")
        return self.dense(name, self.config.width, y, small, bias)

    def drop(self, y: Array, keys: Array | None, site: Int[Array, ""]) -> Array:
        """What dropout leaves of a branch, whose number is `site`."""
        return y if keys is None else y * keep_mask(keys, site, self.config.dropout, y.shape[1:], y.dtype)

    def attend(
        self,
        query: Float[Array, "batch length heads size"],
        key: Float[Array, "batch length kv_heads size"],
        value: Float[Array, "batch length kv_heads size"],
        cache: Cache | None,
        slots: Slots,
    ) -> tuple[Float[Array, "batch length features"], Cache | None]:
        """What the heads see, side by side, and the cache."""
        if cache is not None:
            begin = slots.slot[:, 0]
            write = jax.vmap(jax.lax.dynamic_update_slice_in_dim, in_axes=(0, 0, 0, None))
            cache = key, value = write(cache[0], key, begin, 0), write(cache[1], value, begin, 0)
        # A few queries over a cache have little to fuse, and lengths that kernels may not take.
        implementation = "xla" if cache is not None else self.config.attention
        if implementation == "cudnn" and self.causal:
            implementation = "cudnn, causal"
        y = attend(query, key, value, slots, implementation, self.config.attention_chunk)
        return y.reshape(*y.shape[:2], -1), cache


class Decoder(TokenModel):
    """Slots hold first the context, seen by all, then the tokens, which see their own sequence up to themselves.

    A subclass says its `block`, the size of a head, and with `place` what all layers share. Where the option sees_begin
    is off, the input that begins a sequence sees itself, and no token sees it: the first token is then at position 0.

    A cache has `layers`, keys and values of every layer; `first`, the first slot that a token in each slot sees;
    `index`, how many tokens it holds; `prefix`, how many slots the context takes.
    """

    config: DecoderOptions
    block: ClassVar[type[Layer]]

    def setup(self) -> None:
        super().setup()
        config = self.config
        causal = self.spec.one_document and not self.context_vocab and config.sees_begin
        self.layers = nn.scan(
            remat(self.block, config.remat, scanned=config.scan_layers),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, 1, nn.broadcast, nn.broadcast),
            out_axes=1,
            length=config.layers,
            unroll=1 if config.scan_layers else config.layers,
        )(config, causal)
        self.norm = self.last_norm()

    def last_norm(self) -> nn.Module:
        """What is done to the last layer's output."""
        raise NotImplementedError

    def cache_shape(self) -> tuple[int, int]:
        """Heads of keys and values, and numbers of a head."""
        raise NotImplementedError

    def place(self, x: Array, position: Int[Array, "batch length"], slots: Slots) -> tuple[Array, Any]:
        """The inputs of the first layer, and what all layers share; position: in its own sequence."""
        raise NotImplementedError

    def hidden(self, inputs: Inputs, context: Array | None, keys: Array | None) -> Float[Array, "batch length width"]:
        x, prefix = self.read_tokens(inputs), self.read_context(context)
        before = 0 if prefix is None else prefix.shape[1]
        x = x if prefix is None else jnp.concatenate([prefix, x], axis=1)
        slot = jnp.broadcast_to(jnp.arange(x.shape[1])[None, :], x.shape[:2])
        bos = jnp.pad(self.begins(inputs), ((0, 0), (before, 0)))
        first = self.first_seen(bos, slot, before)
        x, _ = self.run(x, slot, first, jnp.full(x.shape[:1], before), keys=keys)
        return x[:, before:]

    def start(self, batch: int, length: int, context: Array | None = None) -> Cache:
        config, prefix = self.config, self.read_context(context)
        before = 0 if prefix is None else prefix.shape[1]
        shape = (batch, config.layers, before + length, *self.cache_shape())
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
        piece_first = self.first_seen(self.begins(inputs), slot, before)
        x, layers = self.run(self.read_tokens(inputs), slot, piece_first, prefix, cache["layers"])
        first = jax.vmap(jax.lax.dynamic_update_slice_in_dim, in_axes=(0, 0, 0, None))(first, piece_first, begin, 0)
        return {"layers": layers, "first": first, "index": at + count, "prefix": prefix}, self.logits(x)

    def first_seen(self, begins: Array, slot: Array, before: Any) -> Int[Array, "batch length"]:
        """The first slot that a token in each slot sees; before: that of the sequence which goes on here."""
        return jax.lax.cummax(jnp.where(begins, slot + (not self.config.sees_begin), before), axis=1)

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

        slot, first: the slots of each input and of the first that it sees; prefix: slots of context.
        """
        first = jnp.maximum(jnp.minimum(first, slot), prefix[:, None])  # what no token sees still sees itself
        # Counted from the beginning of the sequence, or the distance to the context would tell how much came before.
        position = prefix[:, None] + slot - first
        x, place = self.place(x, position, Slots(slot, first, prefix))
        keys = keys if self.config.dropout else None
        if keys is not None:
            x *= keep_mask(keys, 2 * self.config.layers, self.config.dropout, x.shape[1:], x.dtype)
        x, layers = self.layers(x, jnp.arange(self.config.layers), layers, place, keys)
        return self.norm(x), layers
