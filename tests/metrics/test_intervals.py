"""Intervals hold the truth as often as they say, where it is known."""

import itertools

import numpy as np
import pytest
from scipy import stats

from gentrain import divergences
from gentrain.metrics import intervals, text
from gentrain.worlds import Table

VOCAB, LENGTH, SAMPLES, WORLDS = 5, 4, 300, 50
STRINGS = np.asarray(list(itertools.product(range(VOCAB), repeat=LENGTH)))  # as a table numbers them
FEW = 60  # with which there are n-grams that are not seen


def random_world(random):
    return Table(random.dirichlet(np.full(VOCAB**LENGTH, 0.3)).reshape((VOCAB,) * LENGTH))


def pairs_of(tokens):
    """How often each pair of symbols stands side by side in each sequence, (n, VOCAB^2)."""
    pairs = tokens[:, :-1] * VOCAB + tokens[:, 1:]
    return (pairs[:, :, None] == np.arange(VOCAB**2)).sum(1)


def sentences(tokens):
    return text.Sentences(tokens.ravel().astype(np.int64), np.arange(len(tokens) + 1) * tokens.shape[1])


def covered(measure):
    """In how many of 50 random worlds the interval holds the truth; measure(random) -> (interval, truth)."""
    held = 0
    for seed in range(WORLDS):
        interval, truth = measure(np.random.default_rng(seed))
        assert interval.low < interval.value < interval.high
        held += interval.low <= truth <= interval.high
    return held


def test_the_basic_bootstrap_holds_the_divergence_of_known_laws_of_pairs():
    def measure(random):
        p, q = random_world(random), random_world(random)
        law_p, law_q = (pairs_of(STRINGS).T @ world.p.ravel() / (LENGTH - 1) for world in (p, q))
        counts = pairs_of(q.sample(random, SAMPLES))

        def statistic(weights):
            drawn = weights @ counts
            return divergences.js(np.broadcast_to(law_p, drawn.shape), drawn / drawn.sum(1, keepdims=True), 0.5)

        return intervals.bootstrap(statistic, SAMPLES, basic=True), divergences.js(law_p, law_q, 0.5)

    assert covered(measure) >= 45


def test_the_bootstrap_holds_a_known_kl():
    def measure(random):
        p, q = random_world(random), random_world(random)
        tokens = p.sample(random, SAMPLES)
        ratios = p.log_prob(tokens) - q.log_prob(tokens)
        truth = divergences.kl(p.p.ravel(), q.p.ravel())
        return intervals.bootstrap(lambda weights: weights @ ratios / SAMPLES, SAMPLES), truth

    assert covered(measure) >= 45


def test_the_jackknife_holds_the_known_number_of_distinct_triples():
    def measure(random):
        world = random_world(random)
        triples = STRINGS[:, :-2] * VOCAB**2 + STRINGS[:, 1:-1] * VOCAB + STRINGS[:, 2:]
        stands = (triples[:, :, None] == np.arange(VOCAB**3)).any(1)
        seen = 1 - (1 - world.p.ravel() @ stands) ** FEW
        ((*_, grams),) = text.count_grams([sentences(world.sample(random, FEW))], 3)
        interval = intervals.jackknife(lambda chosen: text.distinct(text.keep(grams, chosen)), FEW)
        return interval, seen.sum() / (FEW * (LENGTH - 2))

    assert covered(measure) >= 45


def test_the_jackknife_holds_the_mean_self_bleu_of_so_many_samples():
    def measure(random):
        world = random_world(random)
        measure_one = lambda grams: text.self_bleu(grams)[-1].mean()
        draws = [text.count_grams([sentences(world.sample(random, FEW))], 3)[0] for _ in range(41)]
        truth = np.mean([measure_one(grams) for grams in draws[1:]])
        statistic = lambda chosen: measure_one([text.keep(grams, chosen) for grams in draws[0]])
        return intervals.jackknife(statistic, FEW), truth

    assert covered(measure) >= 45


def test_intervals_of_a_mean_are_those_of_theory():
    values = np.random.default_rng(0).gamma(2.0, size=3000)
    error = values.std(ddof=1) / np.sqrt(3000)
    mean = lambda weights: weights @ values / 3000
    for basic in (False, True):
        drawn = intervals.bootstrap(mean, 3000, basic=basic, draws=4000, level=0.9)
        expected = stats.norm.interval(0.9, values.mean(), error)
        np.testing.assert_allclose(drawn, [values.mean(), *expected], atol=0.05 * error * 3)
    left_out = intervals.jackknife(lambda chosen: values[chosen].mean(), 3000, groups=3000)
    np.testing.assert_allclose(left_out, intervals.student(values))
    np.testing.assert_allclose(intervals.student(values)[1:], stats.t.interval(0.95, 2999, values.mean(), error))


def test_a_basic_bootstrap_turns_a_skewed_percentile_interval_around():
    values = np.random.default_rng(1).exponential(size=50)
    square = lambda weights: (weights @ values / 50) ** 2
    percentile, basic = (intervals.bootstrap(square, 50, basic=basic) for basic in (False, True))
    assert percentile.value == basic.value
    np.testing.assert_allclose([basic.low, basic.high], 2 * basic.value - [percentile.high, percentile.low])
    assert basic.high - basic.value < basic.value - basic.low


def test_draws_are_the_same_for_a_seed_and_in_any_blocks(monkeypatch):
    values = np.random.default_rng(2).normal(size=(40, 3))
    mean = lambda weights: weights @ values / 40
    once = intervals.bootstrap(mean, 40, draws=200, seed=5)
    assert once.low.shape == (3,)
    assert not np.array_equal(once.low, intervals.bootstrap(mean, 40, draws=200, seed=6).low)
    monkeypatch.setattr(intervals, "BLOCK", 700)
    np.testing.assert_allclose(once, intervals.bootstrap(mean, 40, draws=200, seed=5), rtol=1e-12)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_paired_differences_over_few_seeds_hold_the_truth_as_often_as_they_say(seeds):
    random, trials = np.random.default_rng(seeds), 20_000
    luck = 10 * random.normal(size=(seeds, trials))  # what both share falls out
    ones = luck + random.normal(size=(seeds, trials)) + 0.3
    others = luck + random.normal(size=(seeds, trials))
    interval = intervals.paired(ones, others)
    assert np.mean((interval.low <= 0.3) & (interval.high >= 0.3)) == pytest.approx(0.95, abs=0.006)
    wide = intervals.paired(ones, random.permutation(others, axis=1))
    assert np.median(wide.high - wide.low) > 4 * np.median(interval.high - interval.low)


def test_too_few_to_tell():
    one = intervals.paired([2.0], [1.5])
    assert (one.value, one.low, one.high) == (0.5, -np.inf, np.inf)
    with pytest.raises(ValueError, match="not 2 and 1"):
        intervals.paired([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="there are 1 in all"):
        intervals.jackknife(lambda chosen: 0.0, 1)
