"""How sure a number is: intervals that hold what it estimates in a share `level` of the cases."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

BLOCK = 1 << 21  # weights of a bootstrap that are held at once


class Interval(NamedTuple):
    """An estimate and the ends of its interval; arrays where there are several numbers."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    n: int,
    *,
    basic: bool = False,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Of a statistic of n independent samples, by drawing them again with replacement, all draws at once.

    statistic(weights (k, n)) -> (k, …): its values where sample i counts weights[:, i] times. The ends are quantiles a,
    b of the draws or, where `basic`, 2 value - b and 2 value - a: for statistics that are biased, as divergences of
    counts are, which the draws are once more. Not for what depends on which samples are equal, as self-BLEU and
    distinct n-grams do: see jackknife. Efron & Tibshirani, 1993.
    """
    random, rows = np.random.default_rng(seed), max(1, BLOCK // n)
    parts = []
    for start in range(0, draws, rows):
        count = min(rows, draws - start)
        drawn = random.integers(n, size=(count, n)) + np.arange(count)[:, None] * n
        parts.append(statistic(np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)))
    value = statistic(np.ones((1, n), np.int64))[0]
    low, high = np.quantile(np.concatenate(parts), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(value, 2 * value - high, 2 * value - low) if basic else Interval(value, low, high)


def jackknife(
    statistic: Callable[[np.ndarray], np.ndarray | float], n: int, *, groups: int = 20, level: float = 0.95
) -> Interval:
    """Of a statistic of n independent samples, for its mean over samples of that size: value ± t s, Student's t with
    groups - 1 degrees of freedom and s^2 = (groups - 1) / groups sum_g (theta_g - mean)^2, theta_g without group g.

    statistic(chosen (n,) bool) -> its values (…), of the chosen samples alone. Sample i is in group i % groups; there
    are no more groups than samples. It is too wide rather than too narrow where samples tell by their company, as in
    self-BLEU (Efron & Stein, 1981). Raises ValueError for fewer than two samples. Tukey, 1958.
    """
    groups = min(groups, n)
    if groups < 2:
        raise ValueError(f"a jackknife leaves some samples out, and there are {n} in all")
    group = np.arange(n) % groups
    without = np.stack([statistic(group != g) for g in range(groups)])
    return left_out(np.asarray(statistic(np.ones(n, bool))), without, level=level)


def left_out(value: np.ndarray, without: np.ndarray, *, level: float = 0.95) -> Interval:
    """The jackknife of a value from what it is without each group (groups, …); nan ends where one is not finite."""
    groups = len(without)
    with np.errstate(invalid="ignore"):
        error = np.sqrt((groups - 1) / groups * np.square(without - without.mean(0)).sum(0))
    return around(value, error, groups - 1, level)


def jackknife_pair(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray | float], n: int, m: int, *, level: float = 0.95
) -> Interval:
    """The jackknife of a statistic of two independent samples, for its mean over both, of n and of m.

    statistic(chosen (n,) bool, others (m,) bool) -> its values of the chosen samples alone.
    """
    first, second = np.ones(n, bool), np.ones(m, bool)
    one = jackknife(lambda chosen: statistic(chosen, second), n, level=level)
    return combine(one.value, one, jackknife(lambda chosen: statistic(first, chosen), m, level=level))


def combine(value: np.ndarray, *parts: Interval) -> Interval:
    """Of a value that independent things move, each as far as its own interval: widths add up as squares, on each side
    by themselves."""
    below = np.sqrt(sum(np.square(part.value - part.low) for part in parts))
    above = np.sqrt(sum(np.square(part.high - part.value) for part in parts))
    return Interval(value, value - below, value + above)


def clip(interval: Interval, least: float, most: float = np.inf) -> Interval:
    """Without what a number cannot be."""
    return Interval(*(np.clip(each, least, most) for each in interval))


def share(truths: np.ndarray, *, level: float = 0.95) -> Interval:
    """Of the probability of what is true of some of n independent samples, (n,) bool: its score interval, which has a
    width for 0 and for 1 too. Wilson, 1927."""
    found = stats.binomtest(int(np.count_nonzero(truths)), len(truths)).proportion_ci(level, method="wilson")
    return Interval(np.mean(truths), np.asarray(found.low), np.asarray(found.high))


def student(values: np.ndarray, *, level: float = 0.95) -> Interval:
    """Of the mean over the first axis of independent values, as of several seeds: mean ± t s / sqrt(n).

    Infinitely wide for a single value, which tells nothing of how others would differ. Student, 1908.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return Interval(values.mean(0), np.full(values.shape[1:], -np.inf), np.full(values.shape[1:], np.inf))
    return around(values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values)), len(values) - 1, level)


def paired(ones: np.ndarray, others: np.ndarray, *, level: float = 0.95) -> Interval:
    """Of the mean difference, ones - others, of two that were run with the same seeds, in the same order.

    What seeds have in common falls out; one that holds 0 is a tie. Raises ValueError for unequal numbers.
    """
    if len(ones) != len(others):
        raise ValueError(f"pairs have two of everything, not {len(ones)} and {len(others)}")
    return student(np.asarray(ones, np.float64) - np.asarray(others, np.float64), level=level)


def around(value: np.ndarray, error: np.ndarray, freedom: int, level: float) -> Interval:
    """value ± t error."""
    reach = stats.t.ppf((1 + level) / 2, freedom) * error
    return Interval(value, value - reach, value + reach)
