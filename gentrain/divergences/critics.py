"""The Jensen-Shannon divergence as an f-divergence, and what a critic that tells P from Q learns.

`real_prior` is pi, the probability that an example is real, and it broadcasts to the other arguments.
"""

import jax
import numpy as np

from gentrain.divergences.arrays import (
    Prior,
    Values,
    convert_arrays,
    log_with_zeros,
    mixture_kl_terms,
    multiply_by_weight,
    split_prior,
    subtract_logs,
)


def f_js(u: Values, real_prior: Prior) -> Values:
    """The generator is f_pi(u) = pi u log u - (1 - pi + pi u) log(1 - pi + pi u), so that JS_pi[P||Q] = E_Q f_pi(P/Q).

    It satisfies f_pi(1) = f_pi'(1) = 0 and f_pi''(1) = pi (1 - pi). u = P/Q >= 0 has any shape, the value has the same,
    and the unit is nats.
    A ValueError is raised if a u is negative, or if pi is not in [0, 1].
    """
    xp, u, _ = convert_arrays(u, real_prior)
    if not isinstance(u, jax.core.Tracer) and np.any(np.asarray(u) < 0):
        raise ValueError(f"u is a ratio P/Q, so it must not be negative: {np.asarray(u).min():.3g}")
    u, pi, one_minus_pi = xp.broadcast_arrays(u, *split_prior(real_prior, u, xp))
    return pi * one_minus_pi * sum(mixture_kl_terms(u - 1, log_with_zeros(u, xp), pi, one_minus_pi, xp))


def js_conjugate(t: Values, real_prior: Prior) -> Values:
    """The convex conjugate of f_pi is f*_pi(t) = (1 - pi) log[(1 - pi) / (1 - pi exp(t / pi))] for t < -pi log pi.

    It is infinite from there on. At pi = 0 and 1, where f_pi is 0, it is 0 for t <= 0. JS_pi[P||Q] is the supremum over
    T of E_P T - E_Q f*_pi(T), and it is attained at T = pi log(P/M) = pi log(D / pi) for the optimal critic D. t has
    any shape, the value has the same, and the unit is nats.
    A ValueError is raised if pi is not in [0, 1].
    The source is Nowozin et al., "f-GAN" (2016), weighted Jensen-Shannon.
    """
    xp, t, _ = convert_arrays(t, real_prior)
    t, pi, one_minus_pi = xp.broadcast_arrays(t, *split_prior(real_prior, t, xp))
    interior = (pi > 0) & (one_minus_pi > 0)
    pi, one_minus_pi = xp.where(interior, pi, 0.5), xp.where(interior, one_minus_pi, 0.5)  # 0.5 is a stand-in
    exponent = xp.where(interior, t, -1) / pi + xp.log(pi)
    bounded = exponent < 0
    value = one_minus_pi * (xp.log(one_minus_pi) - xp.log(-xp.expm1(xp.where(bounded, exponent, -1))))
    return xp.where(interior, xp.where(bounded, value, xp.inf), xp.where(t <= 0, 0.0, xp.inf))


def js_activation(v: Values, real_prior: Prior) -> Values:
    """The activation is T(v) = -pi log pi - log(1 + exp(-v)).

    It maps any real v to the domain t < -pi log pi of js_conjugate. v has any shape, the value has the same, and the
    unit is nats.
    A ValueError is raised if pi is not in [0, 1].
    The source is Nowozin et al., "f-GAN" (2016), weighted Jensen-Shannon.
    """
    xp, v, _ = convert_arrays(v, real_prior)
    v, pi, _ = xp.broadcast_arrays(v, *split_prior(real_prior, v, xp))
    return -multiply_by_weight(pi, log_with_zeros(pi, xp), xp) - xp.logaddexp(0, -v)


def optimal_logit(log_p: Values, log_q: Values, real_prior: Prior) -> Values:
    """The optimal logit is l* = log(pi / (1 - pi)) + log P/Q, in nats.

    It is the logit of the optimal critic D* = pi P / M, where an example is real with probability pi. It is -inf at
    pi = 0 and inf at pi = 1, whatever the example. log_p and log_q are log-densities of the same examples, of any one
    shape, and the value has the same.
    A ValueError is raised if pi is not in [0, 1].
    """
    xp, log_p, log_q, _ = convert_arrays(log_p, log_q, real_prior)
    pi, one_minus_pi = split_prior(real_prior, log_p, xp)
    log_p, log_q, pi, one_minus_pi = xp.broadcast_arrays(log_p, log_q, pi, one_minus_pi)
    prior_logit = log_with_zeros(pi, xp) - log_with_zeros(one_minus_pi, xp)
    at_end = xp.isinf(prior_logit)
    inside = xp.where(at_end, 0, prior_logit) + subtract_logs(log_p, log_q, xp)  # -inf + inf would be NaN
    return xp.where(at_end, prior_logit, inside)
