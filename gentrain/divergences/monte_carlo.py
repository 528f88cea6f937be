"""Divergences estimated from log-densities at samples.

The last axis is the sample, and the axes before it are a batch.
"""

from typing import Any, NamedTuple

from jaxtyping import Float

from gentrain.divergences.arrays import (
    AnyArray,
    Values,
    convert_arrays,
    log_over_mixture,
    split_prior,
    subtract_logs,
)


class Estimate(NamedTuple):
    """A Monte Carlo mean and the standard deviation of its error, which is infinite where the mean is."""

    value: Values
    standard_error: Values


def monte_carlo_kl(log_p: Float[AnyArray, "*batch samples"], log_q: Float[AnyArray, "*batch samples"]) -> Estimate:
    """The estimate of KL[P||Q] is the mean of log P/Q over samples of P, in nats.

    It is infinite, and its standard error too, where Q cannot make one of the samples.
    log_p and log_q have shape (*batch, samples), and the value and its standard error have (*batch).
    A ValueError is raised below two samples.
    """
    xp, log_p, log_q = convert_arrays(log_p, log_q)
    return _average(subtract_logs(log_p, log_q, xp), xp)


def monte_carlo_js(
    log_p_at_p: Float[AnyArray, "*batch real"],
    log_q_at_p: Float[AnyArray, "*batch real"],
    log_p_at_q: Float[AnyArray, "*batch fake"],
    log_q_at_q: Float[AnyArray, "*batch fake"],
    real_prior: float,
) -> Estimate:
    """The estimate of JS_pi is that of pi E_P log P/M + (1 - pi) E_Q log Q/M, in nats, from samples of both P and Q.

    The two logarithms are bounded above, by -log pi and -log(1 - pi), so nothing is clipped. An expectation of weight 0
    adds 0, even at a sample that only one of P and Q can make. Hence the estimate is 0 at pi = 0 and 1, as JS_pi is.
    log_p_at_p and log_q_at_p have shape (*batch, real), log_p_at_q and log_q_at_q have (*batch, fake), and the value
    and its standard error have (*batch).
    A ValueError is raised below two samples of either, or if pi is not in [0, 1].
    """
    xp, p_at_p, q_at_p, p_at_q, q_at_q = convert_arrays(log_p_at_p, log_q_at_p, log_p_at_q, log_q_at_q)
    pi, one_minus_pi = split_prior(real_prior, p_at_p, xp)
    p_log_ratio = _ignore_infinite(subtract_logs(p_at_p, q_at_p, xp), pi, xp)
    q_log_ratio = _ignore_infinite(subtract_logs(q_at_q, p_at_q, xp), one_minus_pi, xp)
    p_mean = _average(log_over_mixture(pi, one_minus_pi, p_log_ratio, xp), xp)
    q_mean = _average(log_over_mixture(one_minus_pi, pi, q_log_ratio, xp), xp)
    value = pi * p_mean.value + one_minus_pi * q_mean.value
    return Estimate(value, xp.hypot(pi * p_mean.standard_error, one_minus_pi * q_mean.standard_error))


def _ignore_infinite(log_ratio: Any, weight: Any, xp: Any) -> Any:
    """Return the log-ratio, but 0 where it is infinite and the weight is 0: an expectation of weight 0 adds 0."""
    return xp.where((weight == 0) & xp.isinf(log_ratio), 0, log_ratio)


def _average(values: Any, xp: Any) -> Estimate:
    """Return the mean over samples and its standard error."""
    n = values.shape[-1]
    if n < 2:
        raise ValueError(f"an estimate and its error need two samples or more, not {n}")
    mean = xp.mean(values, axis=-1)
    infinite = xp.isinf(mean)
    finite_values = xp.where(infinite[..., None], 0, values)  # inf - inf would be NaN
    return Estimate(mean, xp.where(infinite, xp.inf, xp.std(finite_values, axis=-1, ddof=1) / n**0.5))
