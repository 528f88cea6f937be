"""Where scheduled sampling ends in a known world of sequences.

After Huszár 2015, "How (not) to Train your Generative Model: Scheduled Sampling, Likelihood, Adversary?".
"""

from functools import reduce
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from gentrain.divergences import kl
from gentrain.errors import ConfigError
from gentrain.worlds.table import SequenceWorld, Table, check_probability, conditionals, marginal, normalise

COINS = ("token", "sequence", "parallel")
LABELS = ("true", "expert")
MOST_PAIRS = 2**25  # (true prefix, fed prefix) pairs of the recursion: 256 MB
HUGE = 1e9


def scheduled_sampling_fixed_point(
    p: np.ndarray | SequenceWorld, keep_true: float, coin: str = "token", label: str = "true"
) -> np.ndarray:
    """The law Q* that scheduled sampling converges to when no gradient flows through the fed tokens.

    Of two positions it is keep_true P + (1 - keep_true) P_1 P_2; in general it is the product of
    scheduled_sampling_conditionals. p: a table (V,)*N, or a world that has one; returns (V,)*N. Raises ConfigError.
    """
    by_position = scheduled_sampling_conditionals(p, keep_true, coin, label)
    return reduce(lambda joint, conditional: joint[..., None] * conditional, by_position)


def scheduled_sampling_conditionals(
    p: np.ndarray | SequenceWorld, keep_true: float, coin: str = "token", label: str = "true"
) -> list[np.ndarray]:
    """Element t is Q*(x_t | f_<t), of shape (V,)*(t+1): what the model says after the fed prefix f_<t.

    Q*(x_t | f) = E[P(x_t | x_<t) | f] under the joint law J_t of true and fed prefix, a forward recursion from t = 0.
    keep_true: probability of feeding the true token. coin: 'token' (one coin for each token; the model's tokens follow
    the fed prefix), 'sequence' (one coin for all), 'parallel' (one for each token; the model's tokens follow the true
    prefix: one pass of Duckworth et al. 2019). label: 'true' (the token of the data) or 'expert' (P after the fed
    prefix, as in DAgger: then Q* = P for every keep_true).
    A prefix that is never fed, which always has probability 0 under Q*, has the position's marginal P(x_t): with coin
    'sequence' that is also the limit of keep_true -> 1. It does not enter the joint law.
    Raises ConfigError for unknown names, keep_true outside [0, 1] and tables beyond about 3e7 pairs of prefixes.
    """
    p = (p if isinstance(p, SequenceWorld) else Table(p)).probabilities()
    if coin not in COINS or label not in LABELS:
        raise ConfigError(f"coin {coin!r} and label {label!r} must be of {', '.join(COINS)} and of {', '.join(LABELS)}")
    check_probability("keep_true", keep_true)
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
    vocab = p.shape[0]
    by_position: list[np.ndarray] = []
    joint = np.ones((1, 1))  # J_t(true prefix, fed prefix), prefixes as flat indices
    for t, conditional in enumerate(conditionals(p)):
        true = conditional.reshape(-1, vocab)  # P(next token | true prefix)
        evidence = joint.T @ true  # (fed prefix, next true token)
        q = normalise(evidence, otherwise=marginal(p, t))
        by_position.append(q.reshape(conditional.shape))
        if t + 1 == p.ndim:
            break
        pairs = joint[:, None, :, None] * true[:, :, None, None]  # (x, x_t, f, 1)
        fed = q[:, None, None, :] if parallel else q[None, None]
        coin = keep_true * np.eye(vocab)[None, :, None, :] + (1 - keep_true) * fed
        joint = (pairs * coin).reshape(len(joint) * vocab, -1)
    return by_position


def per_sequence(p: np.ndarray, keep_true: float) -> list[np.ndarray]:
    """Q*(x_t | f) = [keep_true P(f, x_t) + (1 - keep_true) Q*(f) P(x_t)] / [keep_true P(f) + (1 - keep_true) Q*(f)]."""
    by_position: list[np.ndarray] = []
    prefix = np.ones(())  # Q*(f)
    for t in range(p.ndim):
        joint = p.sum(axis=tuple(range(t + 1, p.ndim)))
        evidence = keep_true * joint + (1 - keep_true) * prefix[..., None] * marginal(p, t)
        by_position.append(normalise(evidence, otherwise=marginal(p, t)))
        prefix = prefix[..., None] * by_position[-1]
    return by_position


def scheduled_sampling_divergence(p: np.ndarray, q: np.ndarray, keep_true: float) -> float:
    """D_SS[P||Q] of two symbols, nats; p and q are joint tables (V, V).

    KL[P_1||Q_1] + (1 - keep_true) E_{z~Q_1} KL[P_2||Q_{2|z}] + keep_true E_{z~P_1} KL[P_{2|z}||Q_{2|z}].
    It is KL[P||Q] at keep_true = 1, and improper below: it is above 0 at Q = P, and lower elsewhere.
    """
    (p1, p2_given), (q1, q2_given) = conditionals(p), conditionals(q)
    sampled = weighted_sum((1 - keep_true) * q1, kl(p.sum(0), q2_given))
    true = weighted_sum(keep_true * p1, kl(p2_given, q2_given))
    return float(kl(p1, q1)) + sampled + true


def weighted_sum(weights: np.ndarray, costs: np.ndarray) -> float:
    """sum_z weights[z] costs[z] with 0 inf = 0: a symbol that is never fed costs nothing."""
    return float(weights[weights > 0] @ costs[weights > 0])


class TwoSymbols(NamedTuple):
    """A law of two symbols. first: Q(x_1) (V,). then: Q(x_2 | x_1) (V, V). value: its divergence, nats."""

    first: np.ndarray
    then: np.ndarray
    value: float


def full_gradient_minimum(p: np.ndarray, keep_true: float) -> TwoSymbols:
    """The minimum of D_SS over both factors of Q, the gradient through the fed symbol's law included.

    Given Q_1 the best second factor mixes P_{2|z} and P_2 by keep_true P_1(z) : (1 - keep_true) Q_1(z); Q_1 is then
    found numerically. p: (V, V), every first symbol possible. Raises ConfigError.
    """
    check_probability("keep_true", keep_true)
    p1, p2_given = conditionals(Table(p).p)
    if p1.min() <= 0:
        raise ConfigError("a first symbol of probability 0 leaves Q(x_2 | x_1) undefined: leave that symbol out")
    p2 = p.sum(0)

    def best_second(q1: np.ndarray) -> np.ndarray:
        return normalise(keep_true * p + (1 - keep_true) * q1[:, None] * p2, otherwise=p2)

    def value_and_gradient(logits: np.ndarray) -> tuple[float, np.ndarray]:
        q1 = softmax(logits)
        then = best_second(q1)
        sampled = np.minimum(kl(p2, then), HUGE)  # infinite at keep_true = 1, where its weight is 0
        value = kl(p1, q1) + (1 - keep_true) * q1 @ sampled + keep_true * p1 @ kl(p2_given, then)
        # The second factor is at its optimum, so it moves the value only in second order.
        return float(value), q1 - p1 + (1 - keep_true) * q1 * (sampled - q1 @ sampled)

    minimum = minimize(value_and_gradient, np.log(p1), jac=True, method="BFGS", options={"gtol": 1e-12})
    first = softmax(minimum.x)
    return TwoSymbols(first, best_second(first), float(minimum.fun))
