"""Minimisers of the generalised Jensen-Shannon divergence over families that are too small for the world.

After Huszár 2015, "How (not) to Train your Generative Model: Scheduled Sampling, Likelihood, Adversary?".
"""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import softmax

from gentrain.divergences import normalised_js_from_logits
from gentrain.errors import ConfigError
from gentrain.worlds.points import GaussianMixture
from gentrain.worlds.table import SequenceWorld, Table, check_probability, marginal

MOST_CELLS = 2**22  # of the quadrature
LEAST = 1e-30  # probabilities below it count as that much where their logarithm is taken


class Minimum(NamedTuple):
    """A local minimum. value: JS_pi / (pi (1 - pi)), nats.

    parameters: family 'isotropic': mean (d,) then variance, (d+1,); 'factorised': the marginals (N, V).
    """

    value: float
    parameters: np.ndarray


def js_minima(target: GaussianMixture | SequenceWorld | np.ndarray, family: str, real_prior: float) -> list[Minimum]:
    """Local minima of JN_pi[P||Q] = JS_pi/(pi (1-pi)) over a family of Q too small for P, the global one first.

    real_prior: pi, the weight on P; 0 is KL[P||Q], 1 is KL[Q||P]. family: 'isotropic' (N(mean, variance I) for a
    Gaussian mixture on the line or in the plane, by quadrature) or 'factorised' (independent positions for a table).
    The search starts from several places, so it may miss minima that are far from all of them.
    Raises ConfigError for other families and targets. Huszár 2015, section 5 and figure 1.
    """
    check_probability("real_prior", real_prior)
    if family == "isotropic" and isinstance(target, GaussianMixture):
        return isotropic_minima(target, real_prior)
    if family == "factorised" and not isinstance(target, GaussianMixture):
        return factorised_minima(target, real_prior)
    raise ConfigError(f"family {family!r} for {type(target).__name__}: 'isotropic' fits mixtures, 'factorised' tables")


def js_and_slope(log_p: np.ndarray, log_q: np.ndarray, real_prior: float) -> tuple[float, np.ndarray]:
    """JN_pi of two laws, given by the logs of their cells' masses, and Q times dJN/dQ, up to a multiple of Q.

    M = pi P + (1-pi) Q; dJN/dQ = log(Q/M) / pi, at pi = 0 -P/Q. In logs, so that tails that underflow cost nothing.
    """
    value = float(normalised_js_from_logits(log_p.ravel(), log_q.ravel(), real_prior))
    if real_prior == 0:
        return value, -np.exp(log_p)
    with np.errstate(divide="ignore"):
        log_m = np.logaddexp(np.log(real_prior) + log_p, np.log1p(-real_prior) + log_q)
    return value, np.exp(log_q) * (log_q - log_m) / real_prior


def descend(
    value_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
    starts: list[np.ndarray],
    bounds: list[tuple[float, float]],
) -> list[tuple[float, np.ndarray]]:
    """Where descent from each start ends, (value, parameters), lowest first."""
    options = {"ftol": 0, "gtol": 1e-9, "maxiter": 2000}
    ends = [
        minimize(value_and_gradient, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options) for x in starts
    ]
    return sorted(((float(end.fun), end.x) for end in ends), key=lambda end: end[0])


def distinct(minima: list[Minimum], apart: float) -> list[Minimum]:
    """The minima in order, without those within `apart` of an earlier one in every parameter."""
    kept: list[Minimum] = []
    for minimum in minima:
        if all(np.abs(minimum.parameters - other.parameters).max() > apart for other in kept):
            kept.append(minimum)
    return kept


def isotropic_minima(target: GaussianMixture, real_prior: float) -> list[Minimum]:
    """N(mean, s I) for a mixture, started from the moments of every run of neighbouring components."""
    d = target.dimension
    mean, covariance = target.moments()
    widest, narrowest = np.sqrt(np.diag(covariance).max()), np.sqrt(np.linalg.eigvalsh(target.covariances).min())
    # Sums over equal steps converge like exp(-1/step): 4 a spread leave 1e-8 in the plane, 12 rounding on the line.
    count = int(np.ceil(20 * widest / (narrowest / (12 if d == 1 else 4))))
    if d > 2 or count**d > MOST_CELLS:
        raise ConfigError(f"quadrature of {count}^{d} points is too large: take one or two dimensions and wider modes")
    axes = [np.linspace(mid - 10 * widest, mid + 10 * widest, count) for mid in mean]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    log_cell = sum(np.log(axis[1] - axis[0]) for axis in axes)
    log_p = target.log_prob(x) + log_cell

    def value_and_gradient(theta: np.ndarray) -> tuple[float, np.ndarray]:
        offset, log_s = x - theta[:d], theta[d]
        scaled = (offset**2).sum(-1) / np.exp(log_s)
        log_q = log_cell - (d * (np.log(2 * np.pi) + log_s) + scaled) / 2
        value, slope = js_and_slope(log_p, log_q, real_prior)
        return value, np.append(slope @ offset / np.exp(log_s), slope @ (scaled - d) / 2)

    # A little to the side: a start that is symmetric would stay on a saddle.
    starts = [np.append(m + 1e-3 * narrowest, np.log(np.trace(c) / d)) for m, c in moments_of_neighbours(target)]
    bounds = [(axis[0], axis[-1]) for axis in axes] + [(2 * np.log(narrowest / 2), 2 * np.log(2 * widest))]
    ends = descend(value_and_gradient, starts, bounds)
    return distinct([Minimum(v, np.append(t[:d], np.exp(t[d]))) for v, t in ends], 1e-3 * narrowest**2)


def moments_of_neighbours(target: GaussianMixture) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mean and covariance of every run of components that are neighbours along the first axis."""
    order = np.argsort(target.means[:, 0])
    for first in range(len(order)):
        for last in range(first, len(order)):
            run = order[first : last + 1]
            weights = target.weights[run] / target.weights[run].sum()
            yield GaussianMixture(weights, target.means[run], target.covariances[run]).moments()


def gaussian_variance(covariance: np.ndarray, real_prior: float) -> float:
    """s of the N(0, s I) closest to N(0, covariance) in JS_pi, where it has a closed form.

    pi = 0: tr(C) / d (moments). pi = 1: d / tr(C^-1). d = 2 and pi = 1/2: sqrt(det C), because there
    s*(pi) s*(1 - pi) = det C. Raises ConfigError elsewhere: js_minima has the numbers.
    """
    d = len(covariance)
    if real_prior == 0:
        return float(np.trace(covariance) / d)
    if real_prior == 1:
        return float(d / np.trace(np.linalg.inv(covariance)))
    if real_prior == 0.5 and d == 2:
        return float(np.sqrt(np.linalg.det(covariance)))
    raise ConfigError(f"no closed form for real_prior {real_prior} in {d} dimensions; take 0, 1, or 0.5 in the plane")


def factorised_minima(target: SequenceWorld | np.ndarray, real_prior: float, restarts: int = 16) -> list[Minimum]:
    """prod_i m_i(x_i) for a table, started near P's marginals and from laws drawn with a fixed seed.

    Probabilities of P below 2e-308 count as that much: KL[Q||P] stays finite.
    """
    p = (target if isinstance(target, SequenceWorld) else Table(target)).probabilities()
    log_p = np.log(np.maximum(p, np.finfo(np.float64).tiny))
    n, vocab = p.ndim, p.shape[0]

    def value_and_gradient(theta: np.ndarray) -> tuple[float, np.ndarray]:
        logits = theta.reshape(n, vocab)
        log_marginals = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        log_q = reduce(np.add.outer, log_marginals)
        value, slope = js_and_slope(log_p, log_q, real_prior)
        sums = np.stack([marginal(slope, position) for position in range(n)])
        return value, (sums - np.exp(log_marginals) * slope.sum()).ravel()

    def settled(minimum: Minimum) -> bool:
        # Logits hardly move a probability near 0, so descent may stall there though a larger one would be better.
        probabilities = np.maximum(minimum.parameters, LEAST)
        slope = value_and_gradient(np.log(probabilities).ravel())[1].reshape(n, vocab)
        return bool(np.all(slope / probabilities > -1e-3))

    rng = np.random.default_rng(0)
    marginals = np.stack([marginal(p, position) for position in range(n)])
    starts = [np.log(np.maximum(marginals, 1e-6)) + 1e-3 * rng.standard_normal((n, vocab))]
    starts += [rng.normal(scale=2.0, size=(n, vocab)) for _ in range(restarts)]
    ends = descend(value_and_gradient, [start.ravel() for start in starts], [(-30.0, 30.0)] * (n * vocab))
    minima = [Minimum(value, softmax(t.reshape(n, vocab), axis=-1)) for value, t in ends]
    return distinct([minimum for minimum in minima if settled(minimum)] or minima[:1], 1e-3)


def critical_prior(a: float) -> float | None:
    """The pi above which uniform bits are no longer a local minimum of JS_pi for P = [[a, b], [b, a]], a + b = 1/2.

    Root of log(M_a / M_b) = 2 pi a / M_a with M_c = pi c + (1-pi)/4, where the second derivative along the direction
    in which both bits lean the same way (for a < b: opposite ways) is 0. None where there is none: log(a/b) <= 2.
    Raises ConfigError unless 0 < a < 1/2.
    """
    if not 0 < a < 0.5:
        raise ConfigError(f"a is {a}; P = [[a, b], [b, a]] with a + b = 1/2 needs it between 0 and 1/2")
    high, low = max(a, 0.5 - a), min(a, 0.5 - a)

    def curvature(real_prior: float) -> float:
        mixed_high, mixed_low = (real_prior * c + (1 - real_prior) / 4 for c in (high, low))
        return 2 * real_prior * high / mixed_high - np.log(mixed_high / mixed_low)

    return float(brentq(curvature, 1e-3, 1.0, xtol=1e-12)) if curvature(1.0) < 0 else None
