"""Closed forms, brute force and printed numbers against the fixed points of scheduled sampling.

The numbers are of exact computations in float64 with the theory's own examples; each stands beside fresh instances.
"""

import functools
import itertools

import numpy as np
import pytest

from gentrain import divergences, worlds
from gentrain.errors import ConfigError
from gentrain.worlds import Table
from tests.worlds.helpers import marginals, random_table

KEEP_TRUE = (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)
SYMMETRIC = np.array([[0.4, 0.1], [0.1, 0.4]])
SKEWED = np.array([[0.5, 0.1], [0.05, 0.35]])


def kl(p, q):
    return float(divergences.kl(p.ravel(), q.ravel()))


def product(p):
    """The law of independent positions with the marginals of p."""
    return functools.reduce(np.multiply.outer, marginals(p))


# Two symbols


@pytest.mark.parametrize(
    "p", [SYMMETRIC, SKEWED, random_table(0, 2, 2), random_table(1, 4, 2)], ids=["symmetric", "skewed", "2", "4"]
)
@pytest.mark.parametrize("coin", ["token", "sequence", "parallel"])
def test_two_symbols_end_in_a_mixture_of_the_truth_and_its_marginals(p, coin):
    information = []
    for keep_true in KEEP_TRUE:
        q = worlds.scheduled_sampling_fixed_point(p, keep_true, coin)
        np.testing.assert_allclose(q, keep_true * p + (1 - keep_true) * product(p), atol=1e-12)
        value = worlds.scheduled_sampling_divergence(p, q, keep_true)
        laws = zip(p.sum(1), p / p.sum(1, keepdims=True), strict=True)
        expected = sum(float(first * divergences.js(law, p.sum(0), keep_true)) for first, law in laws)
        assert value == pytest.approx(expected, abs=1e-8)
        # Improper: the truth costs (1 - keep_true) times the lautum information.
        at_truth = worlds.scheduled_sampling_divergence(p, p, keep_true)
        assert at_truth == pytest.approx((1 - keep_true) * kl(product(p), p), abs=1e-10)
        assert value <= at_truth + 1e-12
        information.append(float(divergences.mutual_information(q)))
    assert np.all(np.diff(information) < 0)
    assert kl(p, q) == pytest.approx(float(divergences.mutual_information(p)), abs=1e-8)
    assert kl(q, p) == pytest.approx(kl(product(p), p), abs=1e-8)


@pytest.mark.parametrize(
    "keep_true, same, forward, reverse, js, information",
    [
        (1.00, 0.8000, 0, 0, 0, 0.192745),
        (0.75, 0.7250, 0.015061, 0.016206, 0.003895, 0.104978),
        (0.50, 0.6500, 0.054188, 0.060900, 0.014244, 0.045701),
        (0.25, 0.5750, 0.113439, 0.130464, 0.029958, 0.011293),
        (0.10, 0.5300, 0.158505, 0.183356, 0.041789, 0.001801),
        (0.00, 0.5000, 0.192745, 0.223144, 0.050672, 0),
    ],
)
def test_two_symbols_in_numbers(keep_true, same, forward, reverse, js, information):
    q = worlds.scheduled_sampling_fixed_point(SYMMETRIC, keep_true)
    found = [q[0, 0] / q[0].sum(), kl(SYMMETRIC, q), kl(q, SYMMETRIC)]
    found += [float(divergences.js(SYMMETRIC.ravel(), q.ravel(), 0.5)), float(divergences.mutual_information(q))]
    np.testing.assert_allclose(found, [same, forward, reverse, js, information], atol=6e-7)


@pytest.mark.parametrize(
    "keep_true, semi, full, at_truth",
    [
        (0.75, (0.762500, 0.231250, 0.05740327), (0.607823, 0.761810, 0.229684, 0.05727817), 0.084329),
        (0.50, (0.691667, 0.337500, 0.07180990), (0.606273, 0.690930, 0.335820, 0.07173060), 0.168658),
        (0.25, (0.620833, 0.443750, 0.05154977), (0.602243, 0.620635, 0.443301, 0.05153947), 0.252986),
        (0.00, (0.550000, 0.550000, 0), (0.600000, 0.550000, 0.550000, 0), 0.337315),
    ],
)
def test_semi_and_full_gradient_end_in_different_places(keep_true, semi, full, at_truth):
    first, then = worlds.scheduled_sampling_conditionals(SKEWED, keep_true)
    np.testing.assert_allclose(first, SKEWED.sum(1), atol=1e-12)
    value = worlds.scheduled_sampling_divergence(SKEWED, first[:, None] * then, keep_true)
    np.testing.assert_allclose([*then[:, 0], value], semi, atol=6e-7)
    found = worlds.full_gradient_minimum(SKEWED, keep_true)
    np.testing.assert_allclose([found.first[0], *found.then[:, 0], found.value], full, atol=1e-6)
    assert worlds.scheduled_sampling_divergence(SKEWED, SKEWED, keep_true) == pytest.approx(at_truth, abs=6e-7)


@pytest.mark.parametrize("seed", range(3))
def test_the_full_gradient_minimum_is_one(seed):
    p, keep_true = random_table(seed, 3, 2), 0.4
    found = worlds.full_gradient_minimum(p, keep_true)
    value = lambda q: worlds.scheduled_sampling_divergence(p, q, keep_true)
    assert value(found.first[:, None] * found.then) == pytest.approx(found.value, abs=1e-12)
    assert found.value < value(worlds.scheduled_sampling_fixed_point(p, keep_true)) - 1e-7
    rng = np.random.default_rng(seed)
    for _ in range(50):
        first = found.first * np.exp(1e-2 * rng.normal(size=3))
        then = found.then * np.exp(1e-2 * rng.normal(size=(3, 3)))
        assert value(first[:, None] / first.sum() * then / then.sum(1, keepdims=True)) > found.value
    # At both ends the gradient through the fed symbol adds nothing.
    np.testing.assert_allclose(worlds.full_gradient_minimum(p, 1.0).first, p.sum(1), atol=1e-9)
    np.testing.assert_allclose(worlds.full_gradient_minimum(p, 0.0).first, p.sum(1), atol=1e-9)


# Longer strings


def fed_law(q, x, keep_true, coin):
    """The law of the fed prefix given the true one x: coin by coin, as a table over f of len(x) positions."""
    vocab, length = q[0].shape[0], len(x)
    if coin == "sequence":
        throws = [(keep_true, (True,) * length), (1 - keep_true, (False,) * length)]
    else:
        weigh = lambda kept: keep_true ** sum(kept) * (1 - keep_true) ** (length - sum(kept))
        throws = [(weigh(kept), kept) for kept in itertools.product([True, False], repeat=length)]
    law = np.zeros((vocab,) * length)
    for weight, kept in throws:
        for f in itertools.product(range(vocab), repeat=length):
            past = x if coin == "parallel" else f
            law[f] += weight * np.prod([(f[i] == x[i]) if kept[i] else q[i][past[:i]][f[i]] for i in range(length)])
    return law


def trained(p, keep_true, coin, label, rate=1.0):
    """Exact semi-gradient descent on the logits of every next-token law, each prefix on the scale of its own weight."""
    laws = worlds.conditionals(p)
    logits = [np.zeros_like(law) for law in laws]
    softmax = lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    prefixes = [list(itertools.product(range(p.shape[0]), repeat=t)) for t in range(p.ndim)]
    reach = [[p[x].sum() for x in each] for each in prefixes]
    for _ in range(4000):
        q = [softmax(z) for z in logits]
        change = 0.0
        for t, law in enumerate(laws):
            pairs = np.zeros_like(law)
            for x, weight in zip(prefixes[t], reach[t], strict=True):
                fed = weight * fed_law(q, x, keep_true, coin)
                pairs += fed[..., None] * (law if label == "expert" else law[x])
            gradient = q[t] * pairs.sum(-1, keepdims=True) - pairs
            logits[t] -= rate * gradient / pairs.sum(-1, keepdims=True)
            change = max(change, np.abs(gradient).max())
        if change < 1e-10:
            break
    return q


@pytest.mark.parametrize("label", ["true", "expert"])
@pytest.mark.parametrize("coin", ["token", "sequence", "parallel"])
@pytest.mark.parametrize("keep_true", [0.6, 0.0])
def test_exact_training_of_logits_ends_at_the_recursion(keep_true, coin, label):
    p = random_table(2, 2, 3, concentration=2.0)
    q = trained(p, keep_true, coin, label)
    expected = worlds.scheduled_sampling_conditionals(p, keep_true, coin, label)
    for found, law in zip(q, expected, strict=True):
        np.testing.assert_allclose(found, law, atol=1e-6)
    if label == "expert":
        assert kl(p, worlds.scheduled_sampling_fixed_point(p, keep_true, coin, label)) < 1e-8


@pytest.mark.parametrize("p", [random_table(3, 3, 4, 0.3), random_table(4, 2, 5)], ids=["3^4", "2^5"])
def test_only_the_coin_thrown_per_token_keeps_every_position_s_marginal(p):
    for keep_true in (0.75, 0.5, 0.1):
        token, sequence = (worlds.scheduled_sampling_fixed_point(p, keep_true, coin) for coin in ("token", "sequence"))
        assert token.sum() == pytest.approx(1, abs=1e-12) and sequence.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(marginals(token), marginals(p), atol=1e-10)
        assert np.abs(marginals(sequence) - marginals(p)).max() > 1e-4
    for coin in ("token", "sequence", "parallel"):
        np.testing.assert_allclose(worlds.scheduled_sampling_fixed_point(p, 1.0, coin), p, atol=1e-12)
        factorised = worlds.scheduled_sampling_fixed_point(p, 0.0, coin)
        np.testing.assert_allclose(factorised, product(p), atol=1e-12)
        assert kl(p, factorised) == pytest.approx(float(divergences.total_correlation(p)), abs=1e-10)


@pytest.mark.parametrize(
    "keep_true, token, sequence",
    [
        (0.75, (0.179476, 0.291259), (0.095973, 0.402892)),
        (0.50, (0.391630, 0.101647), (0.252093, 0.174587)),
        (0.25, (0.596786, 0.021860), (0.462836, 0.045107)),
        (0.10, (0.709504, 0.003346), (0.631504, 0.007745)),
    ],
)
def test_four_symbols_in_numbers(keep_true, token, sequence):
    p = random_table(1, 3, 4, concentration=0.3)
    assert float(divergences.total_correlation(p)) == pytest.approx(0.778577, abs=6e-7)
    for coin, expected in (("token", token), ("sequence", sequence)):
        q = worlds.scheduled_sampling_fixed_point(p, keep_true, coin)
        np.testing.assert_allclose([kl(p, q), float(divergences.total_correlation(q))], expected, atol=6e-7)


def test_one_parallel_pass_is_scheduled_sampling_for_two_symbols_only():
    for length, same in ((2, True), (3, False)):
        p = random_table(5, 3, length)
        token, parallel = (worlds.scheduled_sampling_fixed_point(p, 0.5, coin) for coin in ("token", "parallel"))
        assert (np.abs(token - parallel).max() < 1e-12) == same
        assert parallel.sum() == pytest.approx(1, abs=1e-12)


def test_prefixes_that_are_never_fed_have_the_position_s_marginal():
    p = np.array([[0.5, 0.25, 0], [0, 0, 0], [0.25, 0, 0]])
    for coin, keep_true in itertools.product(("token", "sequence", "parallel"), (1.0, 0.5, 0.0)):
        laws = worlds.scheduled_sampling_conditionals(Table(p), keep_true, coin)
        np.testing.assert_allclose(laws[1][1], [0.75, 0.25, 0])
        q = worlds.scheduled_sampling_fixed_point(Table(p), keep_true, coin)
        np.testing.assert_allclose(q, keep_true * p + (1 - keep_true) * product(p), atol=1e-15)
    # Strings that P never makes but Q does, once symbols are independent: the limit is met, not jumped to.
    p = np.zeros((2, 2, 2))
    p[0, 0, 0] = p[1, 1, 1] = 0.5
    for coin in ("token", "sequence"):
        near, end = (worlds.scheduled_sampling_fixed_point(p, keep, coin) for keep in (1 - 1e-9, 1.0))
        np.testing.assert_allclose(near, end, atol=1e-8)
    near, end = (worlds.scheduled_sampling_conditionals(p, keep, "sequence") for keep in (1 - 1e-9, 1.0))
    np.testing.assert_allclose(near[2], end[2], atol=1e-8)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: worlds.scheduled_sampling_fixed_point(SKEWED, 1.5), "keep_true is 1.5"),
        (lambda: worlds.scheduled_sampling_fixed_point(SKEWED, 0.5, coin="tokens"), "coin 'tokens'"),
        (lambda: worlds.scheduled_sampling_fixed_point(SKEWED, 0.5, label="gold"), "label 'gold'"),
        (lambda: worlds.scheduled_sampling_fixed_point(random_table(0, 2, 16), 0.5), "pairs of prefixes"),
        (lambda: worlds.full_gradient_minimum(np.array([[0.5, 0.5], [0, 0]]), 0.5), "undefined"),
    ],
)
def test_what_cannot_be_is_an_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
