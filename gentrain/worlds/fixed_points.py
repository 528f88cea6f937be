"""Where objectives end up in a known world: scheduled sampling's fixed points and the minimisers of JS_pi.

After Huszár 2015, "How (not) to Train your Generative Model: Scheduled Sampling, Likelihood, Adversary?".
"""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import softmax

from gentrain.divergences import kl, normalised_js_from_logits
from gentrain.errors import ConfigError
from gentrain.worlds.points import GaussianMixture
from gentrain.worlds.table import SequenceWorld, Table, conditionals

COINS = ("token", "sequence", "parallel")
LABELS = ("true", "expert")
MOST_PAIRS = 2**25  # (true prefix, fed prefix) pairs of the recursion: 256 MB
MOST_CELLS = 2**22  # of the quadrature of js_minimiser
HUGE = 1e9


# --- Scheduled sampling ---------------------------------------------------------------------------------------------


def scheduled_sampling_fixed_point(
    p: np.ndarray | SequenceWorld, keep_true: float, coin: str = "token", label: str = "true"
) -> np.ndarray:
    """The law that scheduled sampling converges to when no gradient flows through the fed tokens.

    Two positions: Q* = keep_true P + (1 - keep_true) P_1 P_2. In general the product of
    scheduled_sampling_conditionals. p: table (V,)*N or a world that has one; returns (V,)*N. Raises ConfigError.
    """
    laws = scheduled_sampling_conditionals(p, keep_true, coin, label)
    return reduce(lambda joint, law: joint[..., None] * law, laws)


def scheduled_sampling_conditionals(
    p: np.ndarray | SequenceWorld, keep_true: float, coin: str = "token", label: str = "true"
) -> list[np.ndarray]:
    """Element t is Q*(x_t | f_<t), of shape (V,)*(t+1): what the model says after the fed prefix f_<t.

    Q*(x_t | f) = E[P(x_t | x_<t) | f] under the joint law J_t of true and fed prefix, a forward recursion from t = 0.
    keep_true: probability of feeding the true token. coin: 'token' (thrown for each token; the model's tokens follow
    the fed prefix), 'sequence' (once for all), 'parallel' (for each token; the model's tokens follow the true prefix:
    one pass of Duckworth et al. 2019). label: 'true' (the token of the data) or 'expert' (P's law after the FED
    prefix, as DAgger: then Q* = P for every keep_true).
    A prefix that is never fed (always one of probability 0 under Q*) has the position's marginal P(x_t): with
    coin 'sequence' that is also the limit of keep_true -> 1. It does not enter the joint law.
    Raises ConfigError for unknown names, keep_true outside [0, 1] and tables beyond about 3e7 pairs of prefixes.
    """
    p = (p if isinstance(p, SequenceWorld) else Table(p)).probabilities()
    if coin not in COINS or label not in LABELS:
        raise ConfigError(f"coin {coin!r} and label {label!r} must be of {', '.join(COINS)} and of {', '.join(LABELS)}")
    check_unit("keep_true", keep_true)
    if label == "expert":
        return conditionals(p)
    if coin == "sequence":
        return per_sequence(p, keep_true)
    pairs = p[..., 0].size ** 2
    if pairs > MOST_PAIRS:
        raise ConfigError(
            f"{pairs} pairs of prefixes are too many (at most {MOST_PAIRS}): take fewer tokens or symbols"
        )
    return per_token(p, keep_true, parallel=coin == "parallel")


def per_token(p: np.ndarray, keep_true: float, parallel: bool) -> list[np.ndarray]:
    """J_{t+1}(x x_t, f f_t) = J_t(x, f) P(x_t | x) [keep_true 1(f_t = x_t) + (1 - keep_true) Q*(f_t | f)]."""
    vocab, found = p.shape[0], []
    joint = np.ones((1, 1))  # J_t(true prefix, fed prefix), prefixes as flat indices
    for t, law in enumerate(conditionals(p)):
        true_law = law.reshape(-1, vocab)
        evidence = joint.T @ true_law  # (fed prefix, next true token)
        q = normalised(evidence, p.sum(axis=tuple(i for i in range(p.ndim) if i != t)))
        found.append(q.reshape(law.shape))
        if t + 1 == p.ndim:
            break
        pairs = joint[:, None, :, None] * true_law[:, :, None, None]  # (x, x_t, f, 1)
        fed = q[:, None, None, :] if parallel else q[None, None]
        coin = keep_true * np.eye(vocab)[None, :, None, :] + (1 - keep_true) * fed
        joint = (pairs * coin).reshape(len(joint) * vocab, -1)
    return found


def per_sequence(p: np.ndarray, keep_true: float) -> list[np.ndarray]:
    """Q*(x_t | f) = [keep_true P(f, x_t) + (1 - keep_true) Q*(f) P(x_t)] / [keep_true P(f) + (1 - keep_true) Q*(f)]."""
    found, reached = [], np.ones(())
    for t in range(p.ndim):
        marginal = p.sum(axis=tuple(i for i in range(p.ndim) if i != t))
        joint = p.sum(axis=tuple(range(t + 1, p.ndim)))
        found.append(normalised(keep_true * joint + (1 - keep_true) * reached[..., None] * marginal, marginal))
        reached = reached[..., None] * found[-1]
    return found


def normalised(evidence: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Laws along the last axis; `otherwise` where there is no evidence."""
    total = evidence.sum(-1, keepdims=True)
    return np.where(total > 0, evidence / np.where(total > 0, total, 1), otherwise)


def scheduled_sampling_divergence(p: np.ndarray, q: np.ndarray, keep_true: float) -> float:
    """D_SS[P||Q] of two symbols, nats; p and q are joint tables (V, V).

    KL[P_1||Q_1] + (1 - keep_true) E_{z~Q_1} KL[P_2||Q_{2|z}] + keep_true E_{z~P_1} KL[P_{2|z}||Q_{2|z}].
    It is KL[P||Q] at keep_true = 1, and improper below: it is above 0 at Q = P, and lower elsewhere.
    """
    (p1, p2_given), (q1, q2_given) = conditionals(p), conditionals(q)
    sampled = expected((1 - keep_true) * q1, kl(p.sum(0), q2_given))
    true = expected(keep_true * p1, kl(p2_given, q2_given))
    return float(kl(p1, q1)) + sampled + true


def expected(weight: np.ndarray, cost: np.ndarray) -> float:
    """sum weight cost with 0 inf = 0: a symbol that is never fed costs nothing."""
    return float(weight[weight > 0] @ cost[weight > 0])


class TwoSymbols(NamedTuple):
    """first: Q(x_1) (V,). then: Q(x_2 | x_1) (V, V). value: the divergence there, nats."""

    first: np.ndarray
    then: np.ndarray
    value: float


def full_gradient_minimum(p: np.ndarray, keep_true: float) -> TwoSymbols:
    """The minimum of D_SS over both factors of Q, the gradient through the fed symbol's law included.

    Given Q_1 the best second factor mixes P_{2|z} and P_2 by keep_true P_1(z) : (1 - keep_true) Q_1(z); Q_1 is then
    found numerically. p: (V, V), every first symbol possible. Raises ConfigError.
    """
    check_unit("keep_true", keep_true)
    p1, p2_given = conditionals(Table(p).p)
    if p1.min() <= 0:
        raise ConfigError("a first symbol of probability 0 leaves Q(x_2 | x_1) undefined: leave that symbol out")
    p2 = p.sum(0)

    def best(q1: np.ndarray) -> np.ndarray:
        return normalised(keep_true * p + (1 - keep_true) * q1[:, None] * p2, p2)

    def value_and_gradient(logits: np.ndarray) -> tuple[float, np.ndarray]:
        q1 = softmax(logits)
        then = best(q1)
        sampled = np.minimum(kl(p2, then), HUGE)  # infinite at keep_true = 1, where its weight is 0
        value = kl(p1, q1) + (1 - keep_true) * q1 @ sampled + keep_true * p1 @ kl(p2_given, then)
        # The second factor is at its optimum, so it moves the value only in second order.
        return float(value), q1 - p1 + (1 - keep_true) * q1 * (sampled - q1 @ sampled)

    found = minimize(value_and_gradient, np.log(p1), jac=True, method="BFGS", options={"gtol": 1e-12})
    first = softmax(found.x)
    return TwoSymbols(first, best(first), float(found.fun))


# --- The generalised Jensen-Shannon divergence ------------------------------------------------------------------------


class Optimum(NamedTuple):
    """A local minimum. value: JS_pi / (pi (1 - pi)), nats.

    parameters: family 'isotropic': mean (d,) then variance, (d+1,); 'factorised': the marginals (N, V).
    """

    value: float
    parameters: np.ndarray


def js_minimiser(target: GaussianMixture | SequenceWorld | np.ndarray, family: str, real_prior: float) -> list[Optimum]:
    """Local minima of JN_pi[P||Q] = JS_pi/(pi (1-pi)) over a family of Q too small for P, the global one first.

    real_prior: pi, the weight on P; 0 is KL[P||Q], 1 is KL[Q||P]. family: 'isotropic' (N(mean, variance I) for a
    Gaussian mixture on the line or in the plane, by quadrature) or 'factorised' (independent positions for a table).
    The search starts from several places, so it may miss minima that are far from all of them.
    Raises ConfigError for other families and targets. Huszár 2015, section 5 and figure 1.
    """
    check_unit("real_prior", real_prior)
    if family == "isotropic" and isinstance(target, GaussianMixture):
        return isotropic_minimiser(target, real_prior)
    if family == "factorised" and not isinstance(target, GaussianMixture):
        return factorised_minimiser(target, real_prior)
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
    found = [
        minimize(value_and_gradient, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options) for x in starts
    ]
    return sorted(((float(each.fun), each.x) for each in found), key=lambda each: each[0])


def distinct(optima: list[Optimum], apart: float) -> list[Optimum]:
    """The optima in order, without those within `apart` of an earlier one in every parameter."""
    kept: list[Optimum] = []
    for each in optima:
        if all(np.abs(each.parameters - other.parameters).max() > apart for other in kept):
            kept.append(each)
    return kept


def isotropic_minimiser(target: GaussianMixture, real_prior: float) -> list[Optimum]:
    """N(mean, s I) for a mixture, started from the moments of every run of neighbouring components."""
    d = target.dimension
    mean, covariance = target.moments()
    widest, narrowest = np.sqrt(np.diag(covariance).max()), np.sqrt(np.linalg.eigvalsh(target.covariances).min())
    # Sums over equal steps converge like exp(-1/step): the plane's 4 steps a spread leave 1e-8, the line's 12 rounding.
    count = int(np.ceil(20 * widest / (narrowest / (12 if d == 1 else 4))))
    if d > 2 or count**d > MOST_CELLS:
        raise ConfigError(f"quadrature of {count}^{d} points is too large: take one or two dimensions and wider modes")
    axes = [np.linspace(mid - 10 * widest, mid + 10 * widest, count) for mid in mean]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    log_cell = sum(np.log(axis[1] - axis[0]) for axis in axes)
    log_p = target.log_prob(x) + log_cell

    def value_and_gradient(theta: np.ndarray) -> tuple[float, np.ndarray]:
        apart, log_s = x - theta[:d], theta[d]
        scaled = (apart**2).sum(-1) / np.exp(log_s)
        log_q = log_cell - (d * (np.log(2 * np.pi) + log_s) + scaled) / 2
        value, slope = js_and_slope(log_p, log_q, real_prior)
        return value, np.append(slope @ apart / np.exp(log_s), slope @ (scaled - d) / 2)

    order = np.argsort(target.means[:, 0])
    starts = []
    for first in range(len(order)):
        for last in range(first, len(order)):
            run = order[first : last + 1]
            weights = target.weights[run] / target.weights[run].sum()
            m, c = GaussianMixture(weights, target.means[run], target.covariances[run]).moments()
            # A little to the side: a start that is symmetric would stay on a saddle.
            starts.append(np.append(m + 1e-3 * narrowest, np.log(np.trace(c) / d)))
    bounds = [(axis[0], axis[-1]) for axis in axes] + [(2 * np.log(narrowest / 2), 2 * np.log(2 * widest))]
    minima = descend(value_and_gradient, starts, bounds)
    return distinct([Optimum(v, np.append(t[:d], np.exp(t[d]))) for v, t in minima], 1e-3 * narrowest**2)


def gaussian_variance(covariance: np.ndarray, real_prior: float) -> float:
    """s of the N(0, s I) closest to N(0, covariance) in JS_pi, where it has a closed form.

    pi = 0: tr(C) / d (moments). pi = 1: d / tr(C^-1). d = 2 and pi = 1/2: sqrt(det C), because there
    s*(pi) s*(1 - pi) = det C. Raises ConfigError elsewhere: js_minimiser has the numbers.
    """
    d = len(covariance)
    if real_prior == 0:
        return float(np.trace(covariance) / d)
    if real_prior == 1:
        return float(d / np.trace(np.linalg.inv(covariance)))
    if real_prior == 0.5 and d == 2:
        return float(np.sqrt(np.linalg.det(covariance)))
    raise ConfigError(f"no closed form for real_prior {real_prior} in {d} dimensions; take 0, 1, or 0.5 in the plane")


def factorised_minimiser(target: SequenceWorld | np.ndarray, real_prior: float, restarts: int = 16) -> list[Optimum]:
    """prod_i m_i(x_i) for a table, started near P's marginals and from laws drawn with a fixed seed.

    Probabilities of P below 2e-308 count as that much: KL[Q||P] stays finite.
    """
    p = (target if isinstance(target, SequenceWorld) else Table(target)).probabilities()
    log_p = np.log(np.maximum(p, np.finfo(np.float64).tiny))
    n, vocab = p.ndim, p.shape[0]
    others = [tuple(i for i in range(n) if i != position) for position in range(n)]

    def value_and_gradient(theta: np.ndarray) -> tuple[float, np.ndarray]:
        logits = theta.reshape(n, vocab)
        log_marginals = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        log_q = reduce(np.add.outer, log_marginals)
        value, slope = js_and_slope(log_p, log_q, real_prior)
        sums = np.stack([slope.sum(axis=other) for other in others])
        return value, (sums - np.exp(log_marginals) * slope.sum()).ravel()

    def settled(optimum: Optimum) -> bool:
        # Logits hardly move a probability near 0, so descent may stall there though the divergence wants it larger.
        slope = value_and_gradient(np.log(np.maximum(optimum.parameters, 1e-30)).ravel())[1].reshape(n, vocab)
        return bool(np.all(slope / np.maximum(optimum.parameters, 1e-30) > -1e-3))

    rng = np.random.default_rng(0)
    marginals = np.stack([p.sum(axis=other) for other in others])
    starts = [np.log(np.maximum(marginals, 1e-6)) + 1e-3 * rng.standard_normal((n, vocab))]
    starts += [rng.normal(scale=2.0, size=(n, vocab)) for _ in range(restarts)]
    minima = descend(value_and_gradient, [start.ravel() for start in starts], [(-30.0, 30.0)] * (n * vocab))
    optima = [Optimum(value, softmax(t.reshape(n, vocab), axis=-1)) for value, t in minima]
    return distinct([each for each in optima if settled(each)] or optima[:1], 1e-3)


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


def check_unit(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}; it is a probability")
