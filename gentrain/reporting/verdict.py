"""Who is best, who is tied, and how sure that is: statistics over seeds, of numbers alone.

Variants are compared seed by seed. The difference of two variants over the n seeds that both have is its mean d, with
the 95 % interval d ± t s / sqrt(n): s is the differences' standard deviation (n - 1), t Student's quantile of n - 1
degrees of freedom. A variant is best where its interval against every other one excludes 0. Each interval is one of
95 % by itself, without Holm's correction: to be best all of them have to exclude 0, so that more variants make it
harder, not easier, to be called best. Metrics are not corrected for one another.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gentrain.metrics import intervals

Seeds = Mapping[int, float]  # seed -> what was measured; a number that is not finite counts as not measured


class Interval(NamedTuple):
    """A mean over seeds, and where the true one lies; low and high are None where there are less than two seeds."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


class Ranking(NamedTuple):
    """What may be said of variants by one metric.

    order: those that have a number, the best mean first. best, worst: the one that differs from every other for the
    better, or for the worse; None where there is none. tied: the first in order and those that do not differ from it
    (empty where there is a best). unknown: those that share less than two seeds with the first, so that nothing is
    known of the difference. differences: the first less each other one.
    """

    order: tuple[str, ...]
    best: str | None
    tied: tuple[str, ...]
    worst: str | None
    unknown: tuple[str, ...]
    differences: dict[str, Interval]


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student's 95 % interval of values, of which there is at least one."""
    return of_seeds(intervals.student(np.asarray(values)), len(values))


def of_seeds(found: intervals.Interval, count: int) -> Interval:
    """As plain numbers; no ends where a single seed tells nothing of others."""
    mean, low, high = map(float, found)
    return Interval(mean, low, high, count) if count > 1 else Interval(mean, None, None, count)


def measured(values: Seeds) -> dict[int, float]:
    """The seeds that have a finite number."""
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def paired(one: Seeds, other: Seeds) -> Interval | None:
    """one less other over the seeds that both have; None where there is no such seed."""
    one, other = measured(one), measured(other)
    both = [seed for seed in one if seed in other]
    if not both:
        return None
    ones, others = (np.asarray([values[seed] for seed in both]) for values in (one, other))
    return of_seeds(intervals.paired(ones, others), len(both))


def sign(difference: Interval | None) -> int | None:
    """-1 or 1: the interval lies below or above 0; 0: it holds 0; None: there is no interval."""
    if difference is None or difference.low is None or difference.high is None:
        return None
    return -1 if difference.high < 0 else 1 if difference.low > 0 else 0


def rank(values: Mapping[str, Seeds], better: str) -> Ranking:
    """Ranks variants by one metric. better: 'lower' or 'higher'."""
    good = -1 if better == "lower" else 1
    found = {name: seeds for name, one in values.items() if (seeds := measured(one))}
    order = tuple(sorted(found, key=lambda name: -good * statistics.fmean(found[name].values())))
    if len(order) < 2:
        return Ranking(order, None, (), None, (), {})
    first, last = order[0], order[-1]
    against = {name: paired(found[first], found[name]) for name in order[1:]}
    signs = {name: sign(difference) for name, difference in against.items()}
    best = first if all(value == good for value in signs.values()) else None
    same = tuple(name for name, value in signs.items() if value in (0, -good))
    tied = (first, *same) if same and best is None else ()
    unknown = tuple(name for name, value in signs.items() if value is None)
    below = [sign(paired(found[last], found[name])) for name in order[:-1]]
    worst = last if len(order) > 2 and all(value == -good for value in below) else None
    differences = {name: difference for name, difference in against.items() if difference}
    return Ranking(order, best, tied, worst, unknown, differences)


class Budget(NamedTuple):
    """How much of something each variant spent, and the most by the least of it (1: equal)."""

    spent: dict[str, float]
    ratio: float


def budget(spent: Mapping[str, float]) -> Budget | None:
    """Compares what variants spent, as steps or device-seconds; None where less than two are known, or one is 0."""
    known = {name: value for name, value in spent.items() if math.isfinite(value) and value > 0}
    return Budget(known, max(known.values()) / min(known.values())) if len(known) > 1 else None
