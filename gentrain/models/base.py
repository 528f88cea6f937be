"""What a model is: contracts of pure functions over a nested dict of arrays, and what follows from them alone."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain import sharding
from gentrain.heads import Head, head_scores
from gentrain.losses import Scores, score
from gentrain.models.feeding import inputs_after, sequence_starts, shift_right

Params = Any  # nested dict of arrays
Batch = Mapping[str, Any]  # see gentrain/datasets/build.py
Cache = Any  # pytree of arrays, first dimension = batch
Inputs = Int[Array, "batch length"] | Float[Array, "batch length symbols"]  # tokens, or weights that mix them


def unchanged(params: Params) -> Params:
    """What `fold` is where nothing can be done beforehand."""
    return params


def take_logits(params: Params, x: Array) -> Array:
    """What `logits` is where the first half of a model gives logits already."""
    return x


def take_logits_of(params: Params, x: Array, tokens: Array) -> Array:
    """What `logits_of` is there."""
    return jnp.take_along_axis(x, tokens[..., None], axis=-1)[..., 0]


class SequenceModel(NamedTuple):
    """An autoregressive model of token sequences, as pure functions over a nested dict of arrays.

    Inputs are tokens of the vocabulary 0..vocab-1, or `vocab` itself: the input-only beginning-of-sequence token. On
    reading it the model forgets everything before it in that row (not its context), so packed documents never see one
    another. Neural models also take mixtures of tokens: weights (…, vocab + 1) in place of a number, BOS last. A model
    without `context_vocab` ignores its context, which is then None.

    init(key) -> params
    apply(params, inputs, context=None, keys=None) -> logits
        inputs (batch, length) int -> logits (batch, length, vocab) float32; logits[:, t] are those of the token that
        follows inputs[:, :t+1]. context: (batch, positions) int of 0..context_vocab-1, pictures (batch, height, width,
        channels) uint8, or None. keys: (batch,) PRNG keys, one an example, that switch dropout on: what is dropped in
        a row depends on its own key alone.
    hidden(params, inputs, context=None, keys=None) -> x; logits(params, x) -> logits
        apply in two halves, x (batch, length, width), the second position by position: see `at_positions`. hidden is
        None in models whose first half is all of it.
    head(params) -> Head
        What logits does, as arrays: logits(params, x) = x @ kernel + bias. None in models where hidden is.
    logits_of(params, x, tokens) -> (batch, length)
        The logit of tokens (batch, length) alone, at the cost of none but theirs.
    start(params, batch, length, context=None) -> cache
        An empty decoding cache for at most `length` steps.
    step(params, cache, token) -> (cache, logits)
        token (batch,) -> logits (batch, vocab); scanned over the inputs it equals apply.
    extend(params, cache, inputs, at) -> (cache, logits)
        As apply on a piece: inputs (batch, n), the first of them at position at (batch,) of its row, whose cache must
        hold all positions before; what it held from there on is forgotten. None where it would be no faster than
        steps.
    fold(params) -> params
        The same parameters with the work done that does not depend on the inputs, for many steps.
    gather(params) -> params
        The same parameters where each device reads them without the others, for many steps: see sharding.gather.
    chunk: positions whose logits `at_positions` holds at once, 0 for all; likelihoods then take pieces: see heads.
    end: the token that closes a document, or None where every row is full.
    independent: whether the conditional of a position is the same after every prefix.
    parallel: whether hidden reads all positions side by side, so that mesh.sequence may split them.
    """

    init: Callable[..., Params]
    apply: Callable[..., Any]
    start: Callable[..., Cache]
    step: Callable[..., Any]
    vocab: int
    extend: Callable[..., Any] | None = None
    fold: Callable[[Params], Params] = unchanged
    gather: Callable[[Params], Params] = unchanged
    hidden: Callable[..., Any] | None = None
    logits: Callable[..., Any] = take_logits
    head: Callable[[Params], Head] | None = None
    logits_of: Callable[..., Any] = take_logits_of
    chunk: int = 0
    end: int | None = None
    independent: bool = False
    parallel: bool = False

    def inputs(self, tokens: Int[Array, "batch length"]) -> Int[Array, "batch length"]:
        """The inputs that teach the model `tokens`: each one's predecessor, and BOS where a document begins."""
        return shift_right(tokens, self.vocab, self.end)

    def batch_nll(
        self, params: Params, batch: Batch, keys: Array | None = None
    ) -> tuple[Float[Array, "batch length"], Bool[Any, "batch length"]]:
        """-log Q(x_t | x_<t), nats, and the mask of the tokens that count."""
        tokens = batch["tokens"]
        nll = token_nlls(self, params, self.inputs(tokens), tokens, context=batch.get("context"), keys=keys)
        return nll, batch["mask"]

    def log_prob(self, params: Params, examples: Int[Array, "n length"]) -> Float[Array, "n"]:
        """log Q of whole sequences of a fixed length, nats."""
        inputs = shift_right(examples, self.vocab, None)
        return -jnp.sum(token_nlls(self, params, inputs, examples), axis=-1)


class Sampler(NamedTuple):
    """A law of points or images that is known by its samples alone, as pure functions over a nested dict of arrays.

    init(key) -> params; sample(params, keys (n,), context=None) -> examples float32, each a function of its own key and
    row of context, differentiable in params: points (n, d), or pictures (n, height, width, channels) in [-1, 1].
    """

    init: Callable[..., Params]
    sample: Callable[..., Any]


class DensityModel(NamedTuple):
    """A Sampler of points in d dimensions whose density is known: log_prob(params, points (n, d)) -> (n,) nats."""

    init: Callable[..., Params]
    sample: Callable[..., Any]
    log_prob: Callable[..., Any]

    def batch_nll(
        self, params: Params, batch: Batch, keys: Array | None = None
    ) -> tuple[Float[Array, "batch"], Bool[Any, "batch"]]:
        """-log Q(x), nats, and the mask of the rows that count."""
        return -self.log_prob(params, batch["points"]), batch["mask"]


class Critic(NamedTuple):
    """What tells real examples from generated ones, as an estimate of log P/Q.

    init(key) -> params, at which the estimate is 0; apply(params, examples, context=None, keys=None) -> (n, prefixes):
    of the whole example alone (prefixes = 1), or of each prefix of a sequence, after 1, 2, … tokens. Examples are those
    of a Sampler, or tokens (n, length), or weights of them. keys (n,) switch dropout on.
    """

    init: Callable[..., Params]
    apply: Callable[..., Any]


def at_positions(model: SequenceModel, params: Params, function: Callable, inputs, *arrays, context=None, keys=None):
    """function(logits, *arrays) at every position of the inputs, holding the logits of model.chunk positions at once.

    function takes logits (batch, n, vocab) and (batch, n, …) of each array, for any n positions side by side, and
    returns arrays (batch, n, …). The backward pass makes a chunk's logits again, so (batch, length, vocab) never is.
    """
    if not model.chunk:
        return function(model.apply(params, inputs, context, keys), *arrays)

    here = model.gather(params)  # once, and not for every chunk

    def of_chunk(x, *arrays):
        return function(model.logits(here, x), *arrays)

    x = before_logits(model, params, inputs, context, keys)
    return by_chunks(of_chunk, min(model.chunk, inputs.shape[1]), x, *arrays)


def by_chunks(function: Callable, size: int, *arrays: Array) -> Any:
    """function(*arrays), `size` positions of each (batch, length, …) at once; the backward pass makes chunks again.

    Where mesh.sequence splits the positions a device has so many of its own in each chunk.
    """
    batch, length = arrays[0].shape[:2]
    parts = sharding.sequence_parts()
    count = -(-length // (parts * size))  # of chunks, the last filled up

    def split(array):
        array = jnp.pad(array, ((0, 0), (0, count * parts * size - length), *((0, 0),) * (array.ndim - 2)))
        chunks = jnp.moveaxis(array.reshape(batch, parts, count, size, *array.shape[2:]), 2, 0)
        return chunks.reshape(count, batch, parts * size, *array.shape[2:])

    def join(chunks):
        array = jnp.moveaxis(chunks.reshape(count, batch, parts, size, *chunks.shape[3:]), 0, 2)
        return array.reshape(batch, -1, *chunks.shape[3:])[:, :length]

    @jax.checkpoint
    def of_chunk(chunk):
        return function(*chunk)

    return jax.tree.map(join, jax.lax.map(of_chunk, tuple(map(split, arrays))))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def known_logits(model: SequenceModel, params: Params, x: Array, known: Array) -> Array:
    """model.logits(params, x) where they are `known` already: their gradient is that of params and x, and costs no
    matmul over the vocabulary to make them again."""
    return known


def known_forward(model, params, x, known):
    return known, (params, x)


def known_backward(model, residuals, cotangent):
    return *jax.vjp(model.logits, *residuals)[1](cotangent), jnp.zeros_like(cotangent)


known_logits.defvjp(known_forward, known_backward)


def before_logits(
    model: SequenceModel, params: Params, inputs: Inputs, context: Array | None = None, keys: Array | None = None
) -> Float[Array, "batch length _"]:
    """What model.logits takes."""
    return (model.hidden or model.apply)(params, inputs, context, keys)


def token_scores(
    model: SequenceModel,
    params: Params,
    inputs: Inputs,
    tokens: Int[Array, "batch length"],
    context: Array | None = None,
    keys: Array | None = None,
) -> Scores:
    """What likelihoods of the tokens read of the logits; where model.chunk is set these are never all in memory."""
    if model.head is None or not model.chunk:
        return score(model.apply(params, inputs, context, keys), tokens)
    return head_scores(before_logits(model, params, inputs, context, keys), model.head(params), tokens)


def token_nlls(
    model: SequenceModel,
    params: Params,
    inputs: Inputs,
    tokens: Int[Array, "batch length"],
    context: Array | None = None,
    keys: Array | None = None,
) -> Float[Array, "batch length"]:
    """-log Q(token | inputs up to it), nats."""
    return token_scores(model, params, inputs, tokens, context, keys).nll


def prefix_critic(model: SequenceModel, normalised: bool = False) -> Critic:
    """Any sequence model as a critic of prefixes: its outputs are the terms of log P(x_<=t)/Q(x_<=t), a sum over t.

    estimate_t = sum_{i<=t} f(x_<i)[x_i], f the model's logits: increments estimate log P(x_i|x_<i)/Q(x_i|x_<i) and
    telescope by construction. Reads tokens (n, length) or weights (n, length, vocab + 1) that mix them. Normalised, f
    is log-probabilities, and the estimate that of log P(x_<=t).
    """

    def init(key):
        params = model.init(key)
        if "output" in params:
            params = params | {"output": jax.tree.map(jnp.zeros_like, params["output"])}
        return params

    def apply(params, examples, context=None, keys=None):
        inputs = inputs_after(examples, sequence_starts(*examples.shape[:2]), model.vocab)
        # On a mesh the compiler's exchange of what is looked up would not be in the same order in every process.
        if examples.ndim == 2 and not normalised and sharding.holds_all():
            x = before_logits(model, params, inputs, context, keys)
            return jnp.cumsum(model.logits_of(params, x, examples), axis=1)

        if examples.ndim == 2 and normalised:
            return jnp.cumsum(-token_nlls(model, params, inputs, examples, context, keys), axis=1)

        def increments(logits, chosen):
            scores = jax.nn.log_softmax(logits, axis=-1) if normalised else logits
            if chosen.ndim == 3:
                return jnp.sum(scores * chosen[:, :, : model.vocab], axis=-1)
            return jnp.take_along_axis(scores, chosen[..., None], axis=-1)[..., 0]

        return jnp.cumsum(at_positions(model, params, increments, inputs, examples, context=context, keys=keys), axis=1)

    return Critic(init, apply)
