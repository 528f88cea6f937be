"""What the sequence models share: token tables, logits, dropout by example, rematerialisation, the way out of Flax."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from gentrain.datasets.spec import Spec
from gentrain.heads import Head
from gentrain.models.base import Cache, Inputs, Params, SequenceModel, unchanged
from gentrain.models.base_options import TokenModelOptions
from gentrain.sharding import keep_rows, keep_whole, sequence_parts

unit_variance = nn.initializers.variance_scaling(1.0, "fan_in", "normal")  # std 1/sqrt(fan_in)


def keep_mask(keys: Array, site: int | Array, rate: float, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """A dropout mask whose rows depend on their own key and the site's number only: 0, or 1/(1 - rate) where kept.

    keys (batch,) -> (batch, *shape). Srivastava et al. 2014.
    """

    def draw(key):
        return jax.random.bernoulli(jax.random.fold_in(key, site), 1 - rate, shape)

    return jax.vmap(draw)(keys).astype(dtype) / (1 - rate)


def remat(layer: Any, name: str, scanned: bool, checkpoint: Callable = nn.remat) -> Any:
    """A layer, its backward pass keeping everything ('none'), matmul outputs ('dots') or only inputs ('full').

    checkpoint: nn.remat for a module, jax.checkpoint for a function.
    """
    if name == "none":
        return layer
    policies = {"dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims, "full": None}
    # A loop keeps the compiler from merging the recomputation with the forward pass; unrolled code needs the barrier.
    return checkpoint(layer, policy=policies[name], prevent_cse=not scanned)


def by_rows(dense: nn.Dense, x: Float[Array, "*places width"]) -> Float[Array, "*places features"]:
    """dense(x), by one matmul of the rows at all places.

    In the backward pass its kernel's gradient then contracts one dimension. Contracting batch and length as two, the
    compiler for CPUs first copies both sides into another order. Where positions are split over devices, they stay so.
    """
    return dense(x) if sequence_parts() > 1 else dense(flat(x)).reshape(*x.shape[:-1], dense.features)


def flat(x: Float[Array, "*places width"]) -> Float[Array, "rows width"]:
    """The rows at all places."""
    return x.reshape(-1, x.shape[-1])


class Output(nn.Module):
    """Logits x W + b, in float32 whatever the dtype of x; W is a parameter of its own unless given (width, vocab).

    tokens: the one at each position whose logit alone is wanted.
    """

    vocab: int
    param_dtype: str
    use_bias: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        kernel: Float[Array, "width vocab"] | None = None,
        tokens: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length vocab"] | Float[Array, "batch length"]:
        if kernel is None:
            kernel = self.param("kernel", unit_variance, (x.shape[-1], self.vocab), self.param_dtype)
        zeros = nn.initializers.zeros
        bias = self.param("bias", zeros, (self.vocab,), self.param_dtype) if self.use_bias else jnp.zeros(self.vocab)
        if tokens is not None:
            columns = kernel.T.at[tokens].get(mode="clip").astype(x.dtype)
            of_tokens = jnp.sum(x.astype(jnp.float32) * columns.astype(jnp.float32), axis=-1)
            return of_tokens + bias.astype(jnp.float32)[tokens]
        rows = x if sequence_parts() > 1 else flat(x)  # see by_rows
        logits = jnp.matmul(rows, kernel.astype(x.dtype), preferred_element_type=jnp.float32)
        return keep_rows(logits.reshape(*x.shape[:2], self.vocab)) + bias.astype(jnp.float32)[None, None, :]


class Picture(nn.Module):
    """A picture as a row of vectors: convolutions of stride 2 until at most 4 pixels are left of the shorter side.

    Positions are row by row of what is left. Channels double from 32 up to width.
    """

    width: int
    param_dtype: str

    @nn.compact
    def __call__(self, x: UInt8[Array, "batch h w channels"]) -> Float[Array, "batch positions width"]:
        x = x.astype(jnp.float32) / 127.5 - 1
        features = min(32, self.width)
        while min(x.shape[1:3]) > 4:
            x = nn.Conv(features, (3, 3), (2, 2), param_dtype=self.param_dtype)(x)
            x = nn.silu(nn.RMSNorm(param_dtype=self.param_dtype)(x))
            features = min(2 * features, self.width)
        x = by_rows(nn.Dense(self.width, kernel_init=unit_variance, param_dtype=self.param_dtype), x)
        return x.reshape(x.shape[0], -1, self.width)


class TokenModel(nn.Module):
    """The ends of a sequence model: tables of tokens and of context tokens on one side, logits on the other.

    Tables are drawn with std 1/sqrt(width), right for a tied output, and by default read times sqrt(width), for unit
    variance.
    """

    config: TokenModelOptions
    spec: Spec

    @property
    def vocab(self) -> int:
        return self.spec.vocab

    @property
    def context_vocab(self) -> int:
        return self.spec.context_vocab

    @property
    def context_shape(self) -> tuple[int, ...]:
        return self.spec.context_shape

    @property
    def context_positions(self) -> int:
        """How many vectors a context is read as."""
        if not self.context_vocab or len(self.context_shape) != 3:
            return self.context_shape[0] if self.context_vocab else 0
        height, width, _ = self.context_shape
        while min(height, width) > 4:  # see Picture
            height, width = -(-height // 2), -(-width // 2)
        return height * width

    def setup(self) -> None:
        width, dtype = self.config.width, self.config.param_dtype
        table = nn.initializers.normal(width**-0.5)
        self.embed = self.param("embed", table, (self.vocab, width), dtype)
        self.bos = self.param("bos", table, (width,), dtype)  # apart, so that the table divides as the vocabulary does
        if len(self.context_shape) == 3:
            self.picture = Picture(width, dtype)
        elif self.context_vocab:
            self.context = self.param("context", table, (self.context_vocab, width), dtype)
        self.output = Output(self.vocab, dtype, self.config.output_bias)

    def read_tokens(self, inputs: Inputs) -> Float[Array, "batch length width"]:
        """Embeddings of tokens 0..vocab, vocab being the beginning of a sequence, or mixtures of embeddings."""
        if inputs.ndim == 3:
            return self.scaled(inputs @ jnp.concatenate([self.embed, self.bos[None, :]]))
        rows = keep_rows(keep_whole(self.embed).at[inputs].get(mode="clip"))
        return self.scaled(jnp.where((inputs == self.vocab)[:, :, None], self.bos[None, None, :], rows))

    def begins(self, inputs: Inputs) -> Bool[Array, "batch length"]:
        """Where a sequence begins."""
        return inputs == self.vocab if inputs.ndim == 2 else inputs[..., self.vocab] > 0.5

    def read_context(self, context: Array | None) -> Float[Array, "batch positions width"] | None:
        """Symbols (batch, positions) int or pictures (batch, height, width, channels) uint8, as vectors.

        None in a model without context. Raises ValueError where a model with contexts gets none.
        """
        if not self.context_vocab:
            return None
        if context is None:
            raise ValueError(f"this model has a context of {self.context_vocab} symbols, but none was given")
        if len(self.context_shape) == 3:
            return self.picture(context).astype(self.config.compute_dtype)
        return self.scaled(self.context[context])

    def scaled(self, rows: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        """Rows of a table, as they are read: of unit variance at the start."""
        rows = rows.astype(self.config.compute_dtype)
        return rows * self.config.width**0.5 if self.config.scale_embeddings else rows

    def logits(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
        """float32, whatever the dtype of x."""
        return self.output(x, self.embed.T if self.config.tie_embeddings else None)

    def logits_of(
        self, x: Float[Array, "batch length width"], tokens: Int[Array, "batch length"]
    ) -> Float[Array, "batch length"]:
        """The logits of one token at each position, without making those of the others."""
        return self.output(x, self.embed.T if self.config.tie_embeddings else None, tokens)


def take_head(config: TokenModelOptions, params: Params) -> Head:
    """What TokenModel.logits multiplies by and adds."""
    output = params.get("output", {})
    return Head(params["embed"].T if config.tie_embeddings else output["kernel"], output.get("bias"))


def sequence_model(module: TokenModel) -> SequenceModel:
    """The pure functions of a module with methods hidden, start and step, and extend or fold where it has them."""

    def init(key: Array) -> Params:
        picture = len(module.context_shape) == 3
        context = jnp.zeros((1, *module.context_shape), jnp.uint8 if picture else jnp.int32)

        def use_all(module, inputs):
            return module.logits(module.hidden(inputs, context, None))

        return module.init(key, jnp.zeros((1, 1), jnp.int32), method=use_all)["params"]

    def call(params: Params, *arguments: Any, method: str) -> Any:
        variables = {"params": params, "folded": params.get("folded", {})}
        return module.apply(variables, *arguments, method=method)

    def hidden(params: Params, inputs: Array, context: Array | None = None, keys: Array | None = None) -> Array:
        return call(params, inputs, context, keys, method="hidden")

    def logits(params: Params, x: Array) -> Array:
        return call(params, x, method="logits")

    def logits_of(params: Params, x: Array, tokens: Array) -> Array:
        return call(params, x, tokens, method="logits_of")

    def apply(params: Params, inputs: Array, context: Array | None = None, keys: Array | None = None) -> Array:
        return logits(params, hidden(params, inputs, context, keys))

    def start(params: Params, batch: int, length: int, context: Array | None = None) -> Cache:
        return call(params, batch, length, context, method="start")

    def step(params: Params, cache: Cache, token: Array) -> tuple[Cache, Array]:
        return call(params, cache, token, method="step")

    def extend(params: Params, cache: Cache, inputs: Array, at: Array) -> tuple[Cache, Array]:
        return call(params, cache, inputs, at, method="extend")

    def fold(params: Params) -> Params:
        return {**params, "folded": call(params, method="fold")}

    return SequenceModel(
        init,
        apply,
        start,
        step,
        module.spec.vocab,
        extend=extend if hasattr(module, "extend") else None,
        fold=fold if hasattr(module, "fold") else unchanged,
        hidden=hidden,
        logits=logits,
        head=partial(take_head, module.config),
        logits_of=logits_of,
        chunk=module.config.logits_chunk,
        end=module.spec.end,
        parallel=hasattr(module, "extend"),
    )
