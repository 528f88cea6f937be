"""Entropy, Kullback-Leibler and Jensen-Shannon divergences of distributions over a finite support.

The last axis of a distribution is its support, and the axes before it are a batch: (*batch, support). Batch axes
broadcast. `real_prior` is pi, the weight on P in M = pi P + (1 - pi) Q, and it broadcasts to the batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gentrain.divergences.arrays import (
    AnyArray,
    Law,
    Prior,
    Values,
    check_distributions,
    check_supports,
    convert_arrays,
    kl_factor,
    log_with_zeros,
    mixture_kl_terms,
    multiply_by_weight,
    split_prior,
    subtract_logs,
    take_log_ratio,
)

# From probabilities.


def entropy(p: Law) -> Values:
    """The entropy is H[P] = -sum P log P, in nats.

    p has shape (*batch, support), and the value has shape (*batch).
    A ValueError is raised if p is negative or not normalised.
    """
    check_distributions(p=p)
    xp, p = convert_arrays(p)
    return -xp.sum(multiply_by_weight(p, log_with_zeros(p, xp), xp), axis=-1)


def kl(p: Law, q: Law) -> Values:
    """The Kullback-Leibler divergence is KL[P||Q] = sum P log P/Q, in nats.

    It is infinite where P has mass and Q has none. p and q have shape (*batch, support), and the value has (*batch).
    A ValueError is raised if the supports differ, or if p or q is negative or not normalised.
    """
    check_distributions(p=p, q=q)
    xp, p, q = convert_arrays(p, q)
    return xp.sum((p - q) * kl_factor(take_log_ratio(p, q, xp), xp), axis=-1)


def js(p: Law, q: Law, real_prior: Prior) -> Values:
    """The Jensen-Shannon divergence is JS_pi[P||Q] = pi KL[P||M] + (1 - pi) KL[Q||M], in nats.

    It is the information that a draw of M holds on which of P and Q made it. It is at most H[(pi, 1 - pi)], and it is
    0 at pi = 0 and pi = 1. p and q have shape (*batch, support), and the value has (*batch).
    A ValueError is raised if the supports differ, if p or q is negative or not normalised, or if pi is not in [0, 1].
    The source is Huszár, "How (not) to train your generative model" (2015).
    """
    xp, scaled_kl_p, scaled_kl_q, pi, one_minus_pi = _scaled_mixture_kls(p, q, real_prior)
    return multiply_by_weight(pi * one_minus_pi, scaled_kl_p + scaled_kl_q, xp)


def normalised_js(p: Law, q: Law, real_prior: Prior) -> Values:
    """The normalised Jensen-Shannon divergence is JN_pi[P||Q] = JS_pi / (pi (1 - pi)), in nats.

    It is KL[P||Q] at pi = 0 and KL[Q||P] at pi = 1, and it is continuous in pi. Near P = Q it is chi^2 / 2 for every
    pi, so values, gradients and learning rates compare across pi. p and q have shape (*batch, support), and the value
    has (*batch).
    A ValueError is raised if the supports differ, if p or q is negative or not normalised, or if pi is not in [0, 1].
    """
    _, scaled_kl_p, scaled_kl_q, _, _ = _scaled_mixture_kls(p, q, real_prior)
    return scaled_kl_p + scaled_kl_q


def frontier_integral(p: Law, q: Law) -> Values:
    """The frontier integral is FI = 2 int_0^1 JS_pi dpi = sum (P + Q)/2 - P Q log(P/Q) / (P - Q), in nats.

    It lies in [0, 1], and it is 1 for disjoint supports. p and q have shape (*batch, support), and the value has
    (*batch).
    A ValueError is raised if the supports differ, or if p or q is negative or not normalised.
    The source is Liu et al., "Divergence frontiers for generative models" (2021).
    """
    check_distributions(p=p, q=q)
    xp, p, q = convert_arrays(p, q)
    # A term is (P - Q) c(x), with x = log(P/Q) / 2 and c(x) = (coth x - x / sinh^2 x) / 2. Both parts of c are 1/x near
    # 0 and cancel, so a series takes over there.
    x = xp.clip(take_log_ratio(p, q, xp) / 2, -40, 40)  # c(40) is 1/2 to rounding
    small = xp.abs(x) < 0.03
    near, far = xp.where(small, x, 0), xp.where(small, 1, x)
    c = xp.where(
        small,
        near / 3 - 2 * near**3 / 45 + 2 * near**5 / 315,
        (1 / xp.tanh(far) - far / xp.sinh(far) ** 2) / 2,
    )
    return xp.sum((p - q) * c, axis=-1)


def mauve_curve(
    p: Float[AnyArray, "support"],
    q: Float[AnyArray, "support"],
    real_priors: Float[AnyArray, "points"],
    scale: float | None = None,
) -> tuple[Float[AnyArray, "points"], Float[AnyArray, "points"]]:
    """The divergence frontier is (KL[P||M_pi], KL[Q||M_pi]) over pi, in nats.

    With a scale c it is (exp(-c KL[P||M_pi]), exp(-c KL[Q||M_pi])), without a unit. The pi-weighted sum of the first
    pair is JS_pi. p and q have shape (support,), real_priors has (points,), and so does each value.
    A ValueError is raised if the supports differ, if p or q is negative or not normalised, or if a pi is not in [0, 1].
    The source is Pillutla et al., "MAUVE" (2021), with c = 5.
    """
    xp, scaled_kl_p, scaled_kl_q, pi, one_minus_pi = _scaled_mixture_kls(p, q, real_priors)
    kl_p = multiply_by_weight(one_minus_pi, scaled_kl_p, xp)
    kl_q = multiply_by_weight(pi, scaled_kl_q, xp)
    return (kl_p, kl_q) if scale is None else (xp.exp(-scale * kl_p), xp.exp(-scale * kl_q))


def _scaled_mixture_kls(p: Any, q: Any, real_prior: Any) -> tuple[Any, ...]:
    """Return the namespace, KL[P||M] / (1 - pi), KL[Q||M] / pi, pi and 1 - pi."""
    check_distributions(p=p, q=q)
    xp, p, q, _ = convert_arrays(p, q, real_prior)
    pi, one_minus_pi = split_prior(real_prior, p, xp)
    p, q, p_weight, q_weight = xp.broadcast_arrays(p, q, pi[..., None], one_minus_pi[..., None])
    p_terms, q_terms = mixture_kl_terms(p - q, take_log_ratio(p, q, xp), p_weight, q_weight, xp)
    return xp, p_terms.sum(-1), q_terms.sum(-1), pi, one_minus_pi


# From log-probabilities and from logits. These serve losses, where a float32 probability may be 0.


def kl_from_log(log_p: Law, log_q: Law) -> Values:
    """The Kullback-Leibler divergence from log-probabilities is KL[P||Q] = sum P log P/Q, in nats.

    The value and its gradients are finite wherever the logarithms are. log_p and log_q have shape (*batch, support),
    and the value has (*batch).
    A ValueError is raised if the supports differ, or if P or Q is not normalised.
    """
    xp, log_p, log_q = convert_arrays(log_p, log_q)
    check_distributions(p=_exp_if_concrete(log_p), q=_exp_if_concrete(log_q))
    return xp.sum((xp.exp(log_p) - xp.exp(log_q)) * kl_factor(subtract_logs(log_p, log_q, xp), xp), axis=-1)


def normalised_js_from_logits(logits_p: Law, logits_q: Law, real_prior: Prior) -> Values:
    """The normalised divergence from logits is JN_pi[softmax(logits_p)||softmax(logits_q)], in nats.

    A logit of -inf is a state of no mass. logits_p and logits_q have shape (*batch, support), and the value has
    (*batch): one number a token.
    A ValueError is raised if the supports differ, or if pi is not in [0, 1].
    At pi = 0 this is the forward KL of distillation, and at pi = 1 the reverse. It is generalised knowledge
    distillation (Agarwal et al., 2024) times 1 / (pi (1 - pi)), the factor that makes its two ends meet the KLs.
    """
    check_supports(p=np.shape(logits_p)[-1:], q=np.shape(logits_q)[-1:])
    xp, logits_p, logits_q, _ = convert_arrays(logits_p, logits_q, real_prior)
    log_p, log_q = _log_softmax(logits_p, xp), _log_softmax(logits_q, xp)
    pi, one_minus_pi = split_prior(real_prior, logits_p, xp)
    log_p, log_q, pi, one_minus_pi = xp.broadcast_arrays(log_p, log_q, pi[..., None], one_minus_pi[..., None])
    difference = xp.exp(log_p) - xp.exp(log_q)
    p_terms, q_terms = mixture_kl_terms(difference, subtract_logs(log_p, log_q, xp), pi, one_minus_pi, xp)
    return (p_terms + q_terms).sum(-1)


def _log_softmax(logits: Any, xp: Any) -> Any:
    return jax.nn.log_softmax(logits) if xp is jnp else logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def _exp_if_concrete(log_probabilities: Any) -> Any:
    """Return the probabilities on the host, or the tracer itself: its shape is all there is to check."""
    traced = isinstance(log_probabilities, jax.core.Tracer)
    return log_probabilities if traced else np.exp(np.asarray(log_probabilities))
