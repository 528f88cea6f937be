"""Sampling from any sequence model: one compiled scan over its cached step, or a few passes over many positions.

Drawing is deterministic given its noise, so a sequence in which each token depends on those before is the solution of
an equation: z_t = choose(logits(z_<t), t). `sequential` solves it from left to right, `fixed_point` by iterating on all
positions, or a window of them, at once; both end at the same tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain.models.base import DensityModel, Sampler, SequenceModel, at_positions
from gentrain.models.feeding import inputs_after, with_bos


class Samples(NamedTuple):
    """tokens: drawn tokens, 0 after the end; mask: True up to and including the end token; log_prob: log-probability
    of each drawn token under the law it was drawn from, nats, 0 after the end."""

    tokens: Int[Array, "batch length"]
    mask: Bool[Array, "batch length"]
    log_prob: Float[Array, "batch length"]


def filtered(
    logits: Float[Array, "*batch vocab"], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Float[Array, "*batch vocab"]:
    """Logits of the law to draw from: sharpened by 1/temperature, then all but the likeliest tokens set to -inf.

    top_k keeps the k likeliest (0 = all); top_p keeps the smallest set of likeliest tokens whose mass reaches top_p
    (nucleus sampling, Holtzman et al., 2020). Tokens tied with the last one kept are kept too. temperature 0 keeps
    the likeliest alone.
    """
    if temperature == 0:
        top_k, temperature = 1, 1.0
    logits = logits / temperature
    if top_k == 0 and top_p == 1:
        return logits
    ranked = jnp.sort(logits, axis=-1, descending=True)
    last = ranked[..., -1:] if top_k == 0 else ranked[..., min(top_k, logits.shape[-1]) - 1, None]
    if top_p < 1:
        mass_before = jnp.cumsum(jax.nn.softmax(ranked, axis=-1), axis=-1) - jax.nn.softmax(ranked, axis=-1)
        nucleus = jnp.sum(mass_before < top_p, axis=-1, keepdims=True) - 1
        last = jnp.maximum(last, jnp.take_along_axis(ranked, jnp.maximum(nucleus, 0), axis=-1))
    return jnp.where(logits >= last, logits, -jnp.inf)


def draw(logits: Float[Array, "*batch vocab"], uniform: Float[Array, "*batch"]) -> Int[Array, "*batch"]:
    """A token from softmax(logits) for each uniform number in [0, 1), by inverting the cumulative distribution.

    A token of probability 0 is never drawn. One number a token is all the noise there is: on CPU this is faster than
    Gumbel noise over the vocabulary.
    """
    cumulative = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1)
    return jnp.sum(cumulative <= (uniform * cumulative[..., -1])[..., None], axis=-1, dtype=jnp.int32)


def gumbel(keys: Array, positions: Int[Array, "batch n"], vocab: int) -> Float[Array, "batch n vocab"]:
    """Gumbel noise of each position: a function of its row's key and its number, made when needed and not stored."""
    one = lambda key, position: jax.random.gumbel(jax.random.fold_in(key, position), (vocab,))
    return jax.vmap(jax.vmap(one, (None, 0)))(keys, positions)


def make_chooser(name: str, keys: Array, length: int) -> Callable[[Array, Array], Array]:
    """choose(logits (batch, n, vocab), positions (batch, n) int) -> tokens (batch, n), the same for the same logits.

    'inverse_cdf' (one uniform number a position) and 'gumbel' (argmax of logits + Gumbel noise) draw from
    softmax(logits), 'argmax' takes the likeliest. Gumbel's choices change less often when logits change a little, so a
    fixed point takes fewer passes; its noise is `vocab` numbers a position.
    """
    if name == "argmax":
        return lambda logits, positions: jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if name == "gumbel":
        noisy = lambda logits, positions: logits + gumbel(keys, positions, logits.shape[-1])
        return lambda logits, positions: jnp.argmax(noisy(logits, positions), axis=-1).astype(jnp.int32)
    one = lambda key, position: jax.random.uniform(jax.random.fold_in(key, position))
    uniform = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(keys, jnp.arange(length))
    return lambda logits, positions: draw(logits, jnp.take_along_axis(uniform, positions, axis=1))


def mask_to_end(ends: Bool[Array, "batch length"]) -> Bool[Array, "batch length"]:
    """True up to and including the first end of each row."""
    return jnp.cumsum(ends, axis=1) - ends == 0


def sequential(
    model: SequenceModel,
    params,
    choose: Callable,
    starts: Bool[Array, "batch length"],
    context=None,
    return_logits: bool = False,
):
    """What is chosen at each position, from left to right; return_logits: (logits (batch, length, vocab), that).

    choose(logits (batch, n, vocab), positions (batch, n) int) -> tokens (batch, n) int, or weights (batch, n, vocab +
    1) that mix tokens. starts: where BOS is fed instead of what was chosen before.
    """
    batch, length = starts.shape
    params = model.fold(params)

    def advance(carry, now):
        cache, before = carry
        position, start = now
        cache, logits = model.step(params, cache, with_bos(before, start[:, None], model.vocab)[:, 0])
        chosen = choose(logits[:, None, :], jnp.broadcast_to(position, (batch, 1)))
        return (cache, chosen), (logits, chosen[:, 0]) if return_logits else chosen[:, 0]

    logits = jax.ShapeDtypeStruct((batch, 1, model.vocab), jnp.float32)
    kind = jax.eval_shape(choose, logits, jax.ShapeDtypeStruct((batch, 1), jnp.int32))
    start = model.start(params, batch, length, context), jnp.zeros(kind.shape, kind.dtype)
    _, found = jax.lax.scan(advance, start, (jnp.arange(length), starts.T))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), found)


class FixedPoint(NamedTuple):
    """tokens: what was chosen; resolved: so many positions from the front are certain; passes: of the model, over the
    window each."""

    tokens: Int[Array, "batch length"]
    resolved: Int[Array, "batch"]
    passes: Int[Array, ""]


def fixed_point(
    model: SequenceModel,
    params,
    choose: Callable,
    starts: Bool[Array, "batch length"],
    guess: Int[Array, "batch length"],
    *,
    finished: Callable[[Array, Array], Array],
    context=None,
    window: int = 0,
    max_passes: int = 0,
) -> FixedPoint:
    """The tokens that `sequential` chooses, by passes over `window` positions at a time (0: all), from a first guess.

    A position is certain once those before it are, so each pass settles one at least, and in practice many: every row
    goes on from its own first position that changed. Ends when finished(tokens, resolved) holds in all rows, or after
    max_passes (0: as many as it takes, at most `length`). Windows need model.extend; models without it take all.
    """
    batch, length = guess.shape
    extend = model.extend if 0 < window < length else None
    width = window if extend else length
    cut = jax.vmap(lambda row, at: jax.lax.dynamic_slice_in_dim(row, at, width))
    paste = jax.vmap(lambda row, piece, at: jax.lax.dynamic_update_slice_in_dim(row, piece, at, 0))

    def look(state):
        cache, found = state
        at, begin = found.resolved, jnp.minimum(found.resolved, length - width)
        inputs = inputs_after(found.tokens, starts, model.vocab)
        positions = begin[:, None] + jnp.arange(width)[None, :]
        if extend:
            cache, logits = extend(params, cache, cut(inputs, begin), begin)
            chosen = choose(logits, positions)
        else:
            chosen = at_positions(model, params, choose, inputs, positions, context=context)
        old = cut(found.tokens, begin)
        new = jnp.where(positions < at[:, None], old, chosen)
        kept = jnp.cumprod(new == old, axis=1).sum(1)  # positions before the first change
        resolved = begin + jnp.minimum(kept + 1, width)
        return cache, FixedPoint(paste(found.tokens, new, begin), resolved, found.passes + 1)

    def going(state):
        found = state[1]
        return (found.passes < limit) & ~jnp.all(finished(found.tokens, found.resolved))

    cache = model.start(params, batch, length, context) if extend else None
    start = FixedPoint(guess, jnp.zeros((batch,), jnp.int32), jnp.zeros((), jnp.int32))
    limit = min(max_passes, length) if max_passes else length
    return jax.lax.while_loop(going, look, (cache, start))[1]


def sample(
    model: SequenceModel,
    params,
    keys: Array,
    length: int,
    *,
    end: int | None = None,
    context: Array | None = None,
    law: Callable[[Float[Array, "batch vocab"]], Float[Array, "batch vocab"]] = filtered,
) -> Samples:
    """Draws one sequence of at most `length` tokens for each key, token by token from law(logits), until the end
    token if there is one.

    keys (batch,): a sequence depends on its own key, the parameters and its context only, not on the batch it is
    drawn in.
    """
    batch = keys.shape[0]

    def advance(carry, position):
        cache, token, alive = carry
        cache, logits = model.step(params, cache, token)
        logits = law(logits)
        uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, position)))(keys)
        token = jnp.where(alive, draw(logits, uniform), 0)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), token[:, None], axis=-1)[:, 0]
        still = alive if end is None else alive & (token != end)
        return (cache, token, still), Samples(token, alive, jnp.where(alive, log_prob, 0.0))

    start = (
        model.start(params, batch, length, context),
        jnp.full((batch,), model.vocab, jnp.int32),
        jnp.ones((batch,), bool),
    )
    _, drawn = jax.lax.scan(advance, start, jnp.arange(length))
    return Samples(*(jnp.swapaxes(field, 0, 1) for field in drawn))


def draw_examples(
    model: SequenceModel | Sampler | DensityModel,
    params,
    keys: Array,
    length: int,
    context: Array | None = None,
    **options: Any,
) -> Samples | Float[Array, "n ..."]:
    """One example for each key: sequences of at most `length` tokens (options: those of `sample`), or whole points or
    images."""
    if isinstance(model, SequenceModel):
        return sample(model, params, keys, length, context=context, **options)
    return model.sample(params, keys, context)  # they have no options


def beam_search(
    model: SequenceModel, params, context: Array, length: int, width: int, *, end: int | None = None
) -> Samples:
    """A likely sequence for each row of context (batch, …), by keeping the `width` likeliest prefixes at every step.

    argmax over what was kept of sum_t log Q(x_t | x_<t), not divided by length: the best that reached the end token, or
    the best of all where none did. Width 1 is greedy; vocab**length is exact, and with any width between the answer may
    even be less likely than greedy's.
    """
    batch, vocab = context.shape[0], model.vocab
    params = model.fold(params)
    take = jax.vmap(lambda leaf, parent: leaf[parent])  # by row, which stays on its device

    def advance(carry, position):
        cache, kept, score, alive, token = carry
        cache, logits = model.step(params, cache, token.reshape(-1))
        law = jax.nn.log_softmax(logits).reshape(batch, width, vocab)
        # An ended prefix goes on in one way only, and keeps its score.
        law = jnp.where(alive[:, :, None], law, jnp.where(jnp.arange(vocab) == 0, 0.0, -jnp.inf)[None, None, :])
        score, chosen = jax.lax.top_k((score[:, :, None] + law).reshape(batch, -1), width)
        parent, token = chosen // vocab, chosen % vocab
        split = lambda leaf: leaf.reshape(batch, width, *leaf.shape[1:])
        cache = jax.tree.map(lambda leaf: take(split(leaf), parent).reshape(leaf.shape), cache)
        kept, alive = Samples(*(take(field, parent) for field in kept)), take(alive, parent)
        now = Samples(token, alive, jnp.take_along_axis(law.reshape(batch, -1), chosen, axis=1))
        kept = Samples(*(field.at[:, :, position].set(new) for field, new in zip(kept, now, strict=True)))
        return (cache, kept, score, alive if end is None else alive & (token != end), token), None

    one = model.start(params, batch, length, context)
    empty = lambda dtype: jnp.zeros((batch, width, length), dtype)
    start = (
        jax.tree.map(lambda leaf: jnp.repeat(leaf, width, axis=0), one),
        Samples(empty(jnp.int32), empty(bool), empty(jnp.float32)),
        jnp.broadcast_to(jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf), (batch, width)),  # all are the empty prefix
        jnp.ones((batch, width), bool),
        jnp.full((batch, width), vocab, jnp.int32),
    )
    (_, kept, score, alive, _), _ = jax.lax.scan(advance, start, jnp.arange(length))
    best = jnp.argmax(jnp.where(alive, -jnp.inf, score), axis=1)  # where none ended the first, which has most
    return Samples(*(take(field, best) for field in kept))
