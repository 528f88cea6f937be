"""Sampling from any sequence model: one compiled scan over its cached step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain.models import SequenceModel


class Samples(NamedTuple):
    """tokens: drawn tokens, 0 after the end; mask: True up to and including the end token; log_prob: log-probability
    of each drawn token under the law it was drawn from, nats, 0 after the end."""

    tokens: Int[Array, "batch length"]
    mask: Bool[Array, "batch length"]
    log_prob: Float[Array, "batch length"]


def filtered(
    logits: Float[Array, "batch vocab"], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Float[Array, "batch vocab"]:
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
    last = ranked[:, -1:] if top_k == 0 else ranked[:, min(top_k, logits.shape[-1]) - 1][:, None]
    if top_p < 1:
        mass_before = jnp.cumsum(jax.nn.softmax(ranked, axis=-1), axis=-1) - jax.nn.softmax(ranked, axis=-1)
        nucleus = jnp.sum(mass_before < top_p, axis=-1, keepdims=True) - 1
        last = jnp.maximum(last, jnp.take_along_axis(ranked, jnp.maximum(nucleus, 0), axis=-1))
    return jnp.where(logits >= last, logits, -jnp.inf)


def draw(logits: Float[Array, "batch vocab"], uniform: Float[Array, "batch"]) -> Int[Array, "batch"]:
    """A token from softmax(logits) for each uniform number in [0, 1), by inverting the cumulative distribution.

    A token of probability 0 is never drawn. One number a token is all the noise there is: on CPU this is faster than
    Gumbel noise over the vocabulary.
    """
    cumulative = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1)
    return jnp.sum(cumulative <= (uniform * cumulative[:, -1])[:, None], axis=-1, dtype=jnp.int32)


def sample(
    model: SequenceModel,
    params,
    keys: Array,
    length: int,
    *,
    end: int | None = None,
    context: Int[Array, "batch positions"] | None = None,
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
