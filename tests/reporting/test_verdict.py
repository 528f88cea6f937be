"""Best is said only where seeds bear it out: intervals that cover, ties, missing seeds and numbers that are none."""

import math

import numpy as np
import pytest
from scipy import stats

from gentrain.reporting import verdict

NAN = math.nan


def seeds(*values):
    return dict(enumerate(values))


def test_the_interval_is_that_of_a_paired_t_test_and_has_the_level_it_says():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 5))
    found = verdict.paired(seeds(*one), seeds(*other))
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    np.testing.assert_allclose(found[:3], (np.mean(one - other), *expected))
    assert found.seeds == 5


@pytest.mark.parametrize("count", [2, 3, 8])
def test_intervals_hold_the_true_difference_95_times_in_100(count):
    random, truth, times = np.random.default_rng(count), 0.3, 2000
    covered = 0
    for _ in range(times):
        shared = random.normal(size=count)  # what a seed does to both, which pairing takes out
        one, other = shared + truth + 0.1 * random.normal(size=count), shared
        found = verdict.paired(seeds(*one), seeds(*other))
        covered += found.low <= truth <= found.high
    assert abs(covered / times - 0.95) < 4 * math.sqrt(0.95 * 0.05 / times)


@pytest.mark.parametrize("variants", [2, 5])
def test_of_equals_one_is_called_best_at_most_5_times_in_100(variants):
    random, times = np.random.default_rng(variants), 1000
    values = random.normal(size=(times, variants, 3))
    named = [verdict.rank({str(n): seeds(*row) for n, row in enumerate(rows)}, "lower").best for rows in values]
    assert sum(name is not None for name in named) / times < 0.05 + 3 * math.sqrt(0.05 * 0.95 / times)


THREE = {"low": seeds(1.0, 1.2, 1.1), "middle": seeds(2.0, 2.1, 2.2), "high": seeds(5.0, 5.3, 5.1)}


@pytest.mark.parametrize(("better", "best", "worst"), [("lower", "low", "high"), ("higher", "high", "low")])
def test_best_and_worst_differ_from_every_other_in_the_declared_direction(better, best, worst):
    found = verdict.rank(THREE, better)
    assert (found.best, found.worst, found.tied, found.unknown) == (best, worst, (), ())
    assert found.order[0] == best and found.order[-1] == worst
    assert (found.differences["middle"].mean < 0) == (better == "lower")


def test_a_win_that_pairing_shows_is_seen_where_seeds_differ_more_than_variants():
    offsets = np.array([0.0, 10.0, 20.0])
    one, other = seeds(*(offsets + np.array([1.0, 1.1, 0.9]))), seeds(*offsets)
    found = verdict.rank({"one": one, "other": other}, "lower")
    assert found.best == "other" and found.worst is None  # of two, the other one is not the worst


def test_those_that_do_not_differ_from_the_first_are_tied_and_there_is_no_best():
    found = verdict.rank({**THREE, "near": seeds(1.1, 1.1, 1.2)}, "lower")
    assert found.best is None and found.tied == ("low", "near") and found.worst == "high"
    same = verdict.rank({"a": seeds(3.0, 3.0), "b": seeds(3.0, 3.0)}, "higher")
    assert same.best is None and same.tied == ("a", "b") and same.worst is None


def test_one_seed_has_an_order_and_nothing_that_is_sure():
    found = verdict.rank({"a": seeds(1.0), "b": seeds(9.0), "c": seeds(99.0)}, "higher")
    assert found == (("c", "b", "a"), None, (), None, ("b", "a"), found.differences)
    assert found.differences["a"] == (98.0, None, None, 1)


def test_only_common_seeds_are_paired_and_without_two_of_them_nothing_is_known():
    one = {0: 1.0, 1: 1.1, 2: 1.2}
    assert verdict.paired(one, {1: 2.0, 2: 2.1, 7: 99.0}).seeds == 2
    assert verdict.paired(one, {7: 1.0, 8: 2.0}) is None
    found = verdict.rank({"one": one, "far": {0: 9.0, 1: 9.1}, "alone": {0: 9.0}}, "lower")
    assert found.best is None and found.unknown == ("alone",) and found.tied == ()


def test_numbers_that_are_none_count_as_not_measured():
    found = verdict.rank({"a": seeds(1.0, NAN, 1.1), "b": seeds(2.0, 2.1, math.inf), "gone": seeds(NAN)}, "lower")
    assert found.order == ("a", "b") and found.best is None and found.unknown == ("b",)
    assert verdict.rank({"a": seeds(1.0), "gone": seeds(NAN)}, "lower") == (("a",), None, (), None, (), {})
    assert verdict.rank({}, "lower").order == ()


def test_budgets_are_equal_or_so_many_times_unequal():
    assert verdict.budget({"a": 10.0, "b": 10.0}).ratio == 1
    assert verdict.budget({"a": 10.0, "b": 25.0, "c": 20.0, "d": NAN}) == ({"a": 10.0, "b": 25.0, "c": 20.0}, 2.5)
    assert verdict.budget({"a": 10.0, "b": 0.0}) is None
