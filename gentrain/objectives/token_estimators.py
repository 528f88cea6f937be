"""Estimators of a divergence of conditionals at one position, named by where they end.

P is the teacher, Q the student, r = P/Q. log_p, log_q: (…, vocab) log-probabilities; tokens: (…) drawn from Q at that
position. Each gives what is minimised, nats (…), and its gradient goes through Q alone. Derivations by the gradient of
their mean over Q; where that vanishes is where they end.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Law = Float[Array, "*places vocab"]
Drawn = Int[Array, "*places"]
Value = Float[Array, "*places"]


def at(law: Law, tokens: Drawn) -> Value:
    """The numbers of the tokens."""
    return jnp.take_along_axis(law, tokens[..., None], axis=-1)[..., 0]


def k1_score(log_p: Law, log_q: Law, tokens: Drawn, top_k: int) -> Value:
    """(log Q/P) grad log Q, of what was drawn: the score function of KL[Q||P], unbiased. Ends at Q = P."""
    cost = jax.lax.stop_gradient(at(log_q - log_p, tokens))
    return cost * at(log_q, tokens)


def k2(log_p: Law, log_q: Law, tokens: Drawn, top_k: int) -> Value:
    """(log r)^2 / 2, of what was drawn: its gradient is that of KL[Q||P], unbiased. Ends at Q = P. Schulman (2020)."""
    return 0.5 * jnp.square(at(log_q - log_p, tokens))


def k3_forward_kl(log_p: Law, log_q: Law, tokens: Drawn, top_k: int) -> Value:
    """r - 1 - log r, of what was drawn: its value estimates KL[Q||P], and its gradient is that of KL[P||Q].

    Ends at Q = P. As a reward it would descend KL[Q||P] - KL[P||Q], which has no least value: it is not offered.
    """
    log_r = at(log_p - log_q, tokens)
    return jnp.exp(log_r) - 1 - log_r


def tail_bucket(log_p: Law, log_q: Law, tokens: Drawn, top_k: int) -> Value:
    """KL[Q||P] of the top_k likeliest tokens of P and one symbol for all others. Ends at Q = P on them, so that Q has
    P's mass there; inside the rest it says nothing."""
    top_p, numbers = jax.lax.top_k(log_p, top_k)
    top_q = jnp.take_along_axis(log_q, numbers, axis=-1)
    rest_p, rest_q = rest(top_p), rest(top_q)
    return jnp.sum(jnp.exp(top_q) * (top_q - top_p), axis=-1) + jnp.exp(rest_q) * (rest_q - rest_p)


def top_k_plus_score(log_p: Law, log_q: Law, tokens: Drawn, top_k: int) -> Value:
    """KL[Q||P] by a sum over the top_k likeliest tokens of P, and the score function where another one was drawn.

    Unbiased on what Q itself has drawn; ends at Q = P. Its variance is that of the rest alone.
    """
    top_p, numbers = jax.lax.top_k(log_p, top_k)
    top_q = jnp.take_along_axis(log_q, numbers, axis=-1)
    summed = jnp.sum(jax.lax.stop_gradient(top_q - top_p) * jnp.exp(top_q), axis=-1)
    other = jnp.all(numbers != tokens[..., None], axis=-1)
    return summed + jnp.where(other, k1_score(log_p, log_q, tokens, top_k), 0.0)


def truncated(log_p: Law, log_q: Law, tokens: Drawn, top_k: int) -> Value:
    """sum Q log Q/P over the top_k likeliest tokens of P alone. Ends at Q = P/e on them: the rest of Q's mass leaves
    for the other tokens. For showing this."""
    top_p, numbers = jax.lax.top_k(log_p, top_k)
    top_q = jnp.take_along_axis(log_q, numbers, axis=-1)
    return jnp.sum(jnp.exp(top_q) * (top_q - top_p), axis=-1)


def renormalised(log_p: Law, log_q: Law, tokens: Drawn, top_k: int) -> Value:
    """KL[Q||P] of both laws given that the token is one of the top_k likeliest of P. Ends where Q is proportional to P
    on them, with any mass there. For showing this."""
    top_p, numbers = jax.lax.top_k(log_p, top_k)
    top_q = jnp.take_along_axis(log_q, numbers, axis=-1)
    top_p, top_q = (jax.nn.log_softmax(part, axis=-1) for part in (top_p, top_q))
    return jnp.sum(jnp.exp(top_q) * (top_q - top_p), axis=-1)


def rest(top: Law) -> Value:
    """log of the mass that is left beside these tokens, never 0."""
    mass = jnp.minimum(jnp.sum(jnp.exp(top), axis=-1), 1 - 1e-7)
    return jnp.log1p(-mass)


ESTIMATORS: dict[str, Callable[[Law, Law, Drawn, int], Value]] = {
    one.__name__: one for one in (k1_score, k2, k3_forward_kl, tail_bucket, top_k_plus_score, truncated, renormalised)
}
