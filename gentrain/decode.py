"""Sampling from any sequence model: one compiled scan over its cached step, or a few passes over many positions.

A draw is deterministic given its noise, so a sequence in which each token depends on those before it solves an
equation: z_t = choose(logits(z_<t), t). `sequential` solves it from left to right, `fixed_point` by iterating on all
positions, or a window of them, at once; both end at the same tokens.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain.models.base import Cache, Params, SequenceModel, at_positions
from gentrain.models.feeding import inputs_after, with_bos

Choose = Callable[[Array, Array], Array]  # logits (batch, n, vocab), positions (batch, n) int -> what is chosen there


class Samples(NamedTuple):
    """Sequences that a model made.

    tokens: 0 after the end. mask: True up to and including the end token. log_prob: log-probability of each token
    under the law that it was drawn from, nats, 0 after the end.
    """

    tokens: Int[Array, "batch length"]
    mask: Bool[Array, "batch length"]
    log_prob: Float[Array, "batch length"]


def filter_logits(
    logits: Float[Array, "*batch vocab"], temperature: float = 1.0, top_k: int = 0, top_p: float | Array = 1.0
) -> Float[Array, "*batch vocab"]:
    """Logits of the law to draw from: divided by the temperature, then all but the likeliest tokens set to -inf.

    top_k keeps the k likeliest tokens (0: all). top_p keeps the smallest set of likeliest tokens whose share of what
    top_k kept reaches it (nucleus sampling, Holtzman et al., 2020). Tokens that tie with the last one kept are kept
    too. Temperature 0 keeps the likeliest alone, the first of those that tie.
    """
    vocab = logits.shape[-1]
    if temperature == 0:
        return jnp.where(jax.nn.one_hot(jnp.argmax(logits, axis=-1), vocab, dtype=bool), logits, -jnp.inf)
    logits = logits / temperature
    nucleus = isinstance(top_p, Array) or top_p < 1
    if not (top_k or nucleus):
        return logits
    ranked = jnp.sort(logits, axis=-1, descending=True)
    last = ranked[..., min(top_k or vocab, vocab) - 1, None]
    ranked = jnp.where(ranked >= last, ranked, -jnp.inf)
    if nucleus:
        mass_before = jnp.cumsum(jax.nn.softmax(ranked, axis=-1), axis=-1) - jax.nn.softmax(ranked, axis=-1)
        kept = jnp.sum(mass_before < top_p, axis=-1, keepdims=True) - 1
        last = jnp.maximum(last, jnp.take_along_axis(ranked, jnp.maximum(kept, 0), axis=-1))
    return jnp.where(logits >= last, logits, -jnp.inf)


def draw(
    logits: Float[Array, "*batch vocab"], uniform: Float[Array, "*batch"]
) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"]]:
    """A token from softmax(logits) for each uniform number in [0, 1), by inverting the cumulative distribution, and its
    log-probability, nats.

    In two levels, a block of about sqrt(vocab) tokens and one of it: no cumulative sum is over the whole vocabulary. A
    token of probability 0 is never drawn. The noise is one number a token: on a CPU this is faster than Gumbel noise
    over the vocabulary.
    """
    vocab = logits.shape[-1]
    size = math.isqrt(vocab - 1) + 1
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.pad(weights, ((0, 0),) * (logits.ndim - 1) + ((0, -vocab % size),))
    blocks = weights.reshape(*logits.shape[:-1], -1, size)
    mass = jnp.sum(blocks, axis=-1)
    total = jnp.sum(mass, axis=-1)
    block, left = invert(mass, uniform * total)
    within = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    place, _ = invert(within, left)
    weight = jnp.take_along_axis(within, place[..., None], axis=-1)[..., 0]
    return block * size + place, jnp.log(weight / total)


def invert(
    weights: Float[Array, "*batch n"], at: Float[Array, "*batch"]
) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"]]:
    """The index whose piece of the line holds the point `at`, pieces as long as the weights, and how far into it that
    is. A piece of length 0 holds no point; where `at` lies beyond the line, by rounding, the last other one does."""
    cumulative = jnp.cumsum(weights, axis=-1)
    last = weights.shape[-1] - 1 - jnp.argmax(jnp.flip(weights > 0, axis=-1), axis=-1)
    index = jnp.minimum(jnp.sum(cumulative <= at[..., None], axis=-1), last).astype(jnp.int32)
    before = jnp.take_along_axis(cumulative - weights, index[..., None], axis=-1)[..., 0]
    return index, at - before


def gumbel(keys: Array, positions: Int[Array, "batch n"], vocab: int) -> Float[Array, "batch n vocab"]:
    """Gumbel noise of each position: a function of its row's key and its number, made when needed and not stored."""

    def at(key, position):
        return jax.random.gumbel(jax.random.fold_in(key, position), (vocab,))

    return jax.vmap(jax.vmap(at, (None, 0)))(keys, positions)


def uniforms(keys: Array, length: int) -> Float[Array, "batch length"]:
    """A number in [0, 1) for each position: a function of its row's key and its number."""

    def at(key, position):
        return jax.random.uniform(jax.random.fold_in(key, position))

    return jax.vmap(jax.vmap(at, (None, 0)), (0, None))(keys, jnp.arange(length))


def make_chooser(name: str, keys: Array, length: int) -> Choose:
    """choose(logits (batch, n, vocab), positions (batch, n) int) -> tokens (batch, n), the same for the same logits.

    'inverse_cdf' (one uniform number a position) and 'gumbel' (argmax of logits + Gumbel noise) draw from
    softmax(logits), 'argmax' takes the likeliest. Gumbel's choices change less often when logits change a little, so a
    fixed point takes fewer passes; its noise is `vocab` numbers a position.
    """
    if name == "argmax":
        return choose_likeliest
    if name == "gumbel":
        return partial(choose_by_gumbel, keys)
    return partial(choose_by_uniforms, uniforms(keys, length))


def choose_likeliest(logits: Float[Array, "batch n vocab"], positions: Int[Array, "batch n"]) -> Int[Array, "batch n"]:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def choose_by_gumbel(
    keys: Array, logits: Float[Array, "batch n vocab"], positions: Int[Array, "batch n"]
) -> Int[Array, "batch n"]:
    return choose_likeliest(logits + gumbel(keys, positions, logits.shape[-1]), positions)


def choose_by_uniforms(
    uniform: Float[Array, "batch length"], logits: Float[Array, "batch n vocab"], positions: Int[Array, "batch n"]
) -> Int[Array, "batch n"]:
    return draw(logits, jnp.take_along_axis(uniform, positions, axis=1))[0]


def mask_to_end(ends: Bool[Array, "batch length"]) -> Bool[Array, "batch length"]:
    """True up to and including the first end of each row."""
    return jnp.cumsum(ends, axis=1) - ends == 0


class Recursion(NamedTuple):
    """z_t = choose(logits(z_<t), t), t = 0, 1, …, in each row.

    choose(logits (batch, n, vocab), positions (batch, n) int) -> tokens (batch, n) int, or weights (batch, n, vocab +
    1) that mix tokens. starts: where BOS is fed instead of what was chosen before.
    """

    model: SequenceModel
    params: Params
    choose: Choose
    starts: Bool[Array, "batch length"]
    context: Array | None = None


def fold(model: SequenceModel, params: Params, steps: int) -> Params:
    """The parameters for so many steps of a row: where they are read, and with the work for each token done
    beforehand where the steps would do more."""
    return model.gather(model.fold(params) if model.vocab < steps else params)


def sequential(recursion: Recursion, return_logits: bool = False) -> Any:
    """What is chosen at each position, from left to right; with return_logits (logits (batch, length, vocab), that).

    No gradient goes through these logits. They are written where they stay: stacked, they would be by position first,
    and turning them is a copy of what is largest.
    """
    model, params, choose, starts, context = recursion
    batch, length = starts.shape
    params = fold(model, params, batch * length)

    def advance(carry, position_and_start):
        cache, before, kept = carry
        position, start = position_and_start
        cache, logits = model.step(params, cache, with_bos(before, start[:, None], model.vocab)[:, 0])
        chosen = choose(logits[:, None, :], jnp.broadcast_to(position, (batch, 1)))
        if return_logits:
            kept = kept.at[:, position].set(jax.lax.stop_gradient(logits))
        return (cache, chosen, kept), chosen[:, 0]

    logits = jax.ShapeDtypeStruct((batch, 1, model.vocab), jnp.float32)
    chosen = jax.eval_shape(choose, logits, jax.ShapeDtypeStruct((batch, 1), jnp.int32))
    kept = jnp.zeros((batch, length, model.vocab)) if return_logits else None
    carry = model.start(params, batch, length, context), jnp.zeros(chosen.shape, chosen.dtype), kept
    (_, _, kept), by_position = jax.lax.scan(advance, carry, (jnp.arange(length), starts.T))
    choices = jnp.swapaxes(by_position, 0, 1)
    return (kept, choices) if return_logits else choices


class FixedPoint(NamedTuple):
    """How far the passes came.

    tokens: what was chosen. resolved: so many positions from the front are certain. passes: of the model, each over a
    window.
    """

    tokens: Int[Array, "batch length"]
    resolved: Int[Array, "batch"]
    passes: Int[Array, ""]


def fixed_point(
    recursion: Recursion,
    guess: Int[Array, "batch length"],
    *,
    finished: Callable[[Array, Array], Array],
    window: int = 0,
    max_passes: int = 0,
) -> FixedPoint:
    """The tokens that `sequential` chooses, by passes over `window` positions at a time (0: all), from a first guess.

    A position is certain once those before it are, so each pass settles one at least, and in practice many: every row
    goes on from its own first position that changed. The passes end when finished(tokens, resolved) (batch,) holds in
    all rows, or after max_passes (0: as many as it takes, at most `length`). Windows need model.extend; a model without
    it looks at all positions.
    """
    model, params, choose, starts, context = recursion
    batch, length = guess.shape
    extend = model.extend if 0 < window < length else None
    width = window if extend else length
    limit = min(max_passes, length) if max_passes else length
    cut = jax.vmap(lambda row, begin: jax.lax.dynamic_slice_in_dim(row, begin, width))
    paste = jax.vmap(lambda row, piece, begin: jax.lax.dynamic_update_slice_in_dim(row, piece, begin, 0))

    def make_pass(state):
        cache, point = state
        begin = jnp.minimum(point.resolved, length - width)
        inputs = inputs_after(point.tokens, starts, model.vocab)
        positions = begin[:, None] + jnp.arange(width)[None, :]
        if extend:
            cache, logits = extend(params, cache, cut(inputs, begin), begin)
            chosen = choose(logits, positions)
        else:
            chosen = at_positions(model, params, choose, inputs, positions, context=context)
        old = cut(point.tokens, begin)
        new = jnp.where(positions < point.resolved[:, None], old, chosen)
        unchanged = jnp.cumprod(new == old, axis=1).sum(1)  # positions before the first change
        resolved = begin + jnp.minimum(unchanged + 1, width)
        return cache, FixedPoint(paste(point.tokens, new, begin), resolved, point.passes + 1)

    def unfinished(state):
        _, point = state
        return (point.passes < limit) & ~jnp.all(finished(point.tokens, point.resolved))

    cache = model.start(params, batch, length, context) if extend else None
    start = FixedPoint(guess, jnp.zeros((batch,), jnp.int32), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, make_pass, (cache, start))[1]


def change_law(model: SequenceModel, law: Callable[[Array], Array]) -> SequenceModel:
    """The model whose steps give law(logits): from them it is drawn by another law, as `filter_logits`."""

    def step(params, cache, token):
        cache, logits = model.step(params, cache, token)
        return cache, law(logits)

    return model._replace(step=step)


def sample(
    model: SequenceModel,
    params: Params,
    keys: Array,
    length: int,
    *,
    end: int | None = None,
    context: Array | None = None,
) -> Samples:
    """One sequence of at most `length` tokens for each key, drawn token by token until the end token, if there is one.

    keys (batch,): a sequence depends on its own key, the parameters and its context only, not on the batch that it is
    drawn in. `change_law` first where not the model's own law is wanted.
    """
    batch = keys.shape[0]
    params = fold(model, params, batch * length)
    start = (
        model.start(params, batch, length, context),
        jnp.full((batch,), model.vocab, jnp.int32),
        jnp.ones((batch,), bool),
    )
    _, by_position = jax.lax.scan(drawing(model, params, keys, end), start, jnp.arange(length))
    return Samples(*(jnp.swapaxes(field, 0, 1) for field in by_position))


def drawing(model: SequenceModel, params: Params, keys: Array, end: int | None) -> Callable:
    """(cache, token before, alive), position -> the same after it, and a position of Samples: one token a row."""

    def advance(carry, position):
        cache, token, alive = carry
        cache, logits = model.step(params, cache, token)
        uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, position)))(keys)
        token, log_prob = draw(logits, uniform)
        token = jnp.where(alive, token, 0)
        alive_after = alive if end is None else alive & (token != end)
        return (cache, token, alive_after), Samples(token, alive, jnp.where(alive, log_prob, 0.0))

    return advance


class Prompts(NamedTuple):
    """Tokens that sequences begin with. tokens: padded; lengths: how many of them count; known: the least of them."""

    tokens: Int[Array, "batch length"]
    lengths: Int[Array, "batch"]
    known: int


def read_prompts(
    model: SequenceModel, params: Params, prompts: Prompts, length: int
) -> tuple[Cache, Int[Array, "batch"]]:
    """A cache for so many tokens that has read the first `known` inputs, and the token that is read next: BOS and the
    prompts but for the last token that all of them have. A model that reads one token at a time has read none."""
    batch, known = prompts.tokens.shape[0], prompts.known
    cache, bos = model.start(params, batch, length), jnp.full((batch, 1), model.vocab, jnp.int32)
    if known == 0 or model.extend is None:
        return cache, bos[:, 0]
    inputs = jnp.concatenate([bos, prompts.tokens[:, : known - 1]], axis=1)
    cache, _ = model.extend(params, cache, inputs, jnp.zeros((batch,), jnp.int32))
    return cache, prompts.tokens[:, known - 1]


def go_on(
    model: SequenceModel, params: Params, keys: Array, prompts: Prompts, length: int, *, end: int | None = None
) -> Samples:
    """As `sample`, of sequences that begin with a prompt: at most `length` tokens after the longest of them.

    The tokens of the prompts are among what is returned, with log_prob 0. For models without contexts.
    """
    batch, longest = prompts.tokens.shape
    params = fold(model, params, batch * (longest + length))
    cache, token = read_prompts(model, params, prompts, longest + length)
    begin = prompts.known if model.extend else 0
    advance = drawing(model, params, keys, end)

    def advance_or_take(carry, position):
        (cache, token, alive), drawn = advance(carry, position)
        given = position < prompts.lengths
        token = jnp.where(given, prompts.tokens[:, jnp.minimum(position, longest - 1)], token)
        taken = Samples(token, drawn.mask, jnp.where(given, 0.0, drawn.log_prob))
        return (cache, token, given | alive), taken

    carry = cache, token, jnp.ones((batch,), bool)
    _, by_position = jax.lax.scan(advance_or_take, carry, jnp.arange(begin, longest + length))
    drawn = Samples(*(jnp.swapaxes(field, 0, 1) for field in by_position))
    first = prompts.tokens[:, :begin]
    before = Samples(first, jnp.ones(first.shape, bool), jnp.zeros(first.shape, jnp.float32))
    return Samples(*(jnp.concatenate(pair, axis=1) for pair in zip(before, drawn, strict=True)))


def sample_after(
    model: SequenceModel,
    params: Params,
    keys: Array,
    tokens: Int[Array, "batch length"],
    prompt: int,
    context: Array | None = None,
) -> Samples:
    """As `sample`, of rows as long as these, which begin with the first `prompt` tokens of each, up to the model's end.

    The tokens of the prompts are among what is returned. A context is for sequences without a prompt.
    """
    batch, length = tokens.shape
    if not prompt:
        return sample(model, params, keys, length, end=model.end, context=context)
    prompts = Prompts(tokens[:, :prompt], jnp.full((batch,), prompt), prompt)
    return go_on(model, params, keys, prompts, length - prompt, end=model.end)


def beam_search(
    model: SequenceModel, params: Params, context: Array, length: int, width: int, *, end: int | None = None
) -> Samples:
    """A likely sequence for each row of context (batch, …), by keeping the `width` likeliest prefixes at every step.

    The answer is the argmax over the kept prefixes of sum_t log Q(x_t | x_<t), not divided by length: the best that
    reached the end token, or the best of all where none did. Width 1 is greedy, vocab**length is exact; with any width
    between the answer may even be less likely than greedy's.
    """
    batch, vocab = context.shape[0], model.vocab
    params = fold(model, params, batch * width * length)
    take = jax.vmap(lambda leaf, index: leaf[index])  # by row, which stays on its device

    def take_parents(leaf, parent):
        """A leaf of the cache (batch * width, …) that follows the prefixes which were kept."""
        return take(leaf.reshape(batch, width, *leaf.shape[1:]), parent).reshape(leaf.shape)

    def advance(carry, position):
        cache, beams, score, alive, token = carry
        cache, logits = model.step(params, cache, token.reshape(-1))
        log_prob = jax.nn.log_softmax(logits).reshape(batch, width, vocab)
        # An ended prefix goes on in one way only, and keeps its score.
        only_way = jnp.where(jnp.arange(vocab) == 0, 0.0, -jnp.inf)[None, None, :]
        log_prob = jnp.where(alive[:, :, None], log_prob, only_way)
        score, chosen = jax.lax.top_k((score[:, :, None] + log_prob).reshape(batch, -1), width)
        parent, token = chosen // vocab, chosen % vocab
        cache = jax.tree.map(lambda leaf: take_parents(leaf, parent), cache)
        beams, alive = Samples(*(take(field, parent) for field in beams)), take(alive, parent)
        newest = Samples(token, alive, jnp.take_along_axis(log_prob.reshape(batch, -1), chosen, axis=1))
        beams = Samples(*(field.at[:, :, position].set(new) for field, new in zip(beams, newest, strict=True)))
        return (cache, beams, score, alive if end is None else alive & (token != end), token), None

    shape, cache = (batch, width, length), model.start(params, batch, length, context)
    start = (
        jax.tree.map(lambda leaf: jnp.repeat(leaf, width, axis=0), cache),
        Samples(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32)),
        jnp.broadcast_to(jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf), (batch, width)),  # all are the empty prefix
        jnp.ones((batch, width), bool),
        jnp.full((batch, width), vocab, jnp.int32),
    )
    (_, beams, score, alive, _), _ = jax.lax.scan(advance, start, jnp.arange(length))
    best = jnp.argmax(jnp.where(alive, -jnp.inf, score), axis=1)  # where none ended the first, which has most
    return Samples(*(take(field, best) for field in beams))
