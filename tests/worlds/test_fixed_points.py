"""Closed forms, brute force and printed numbers against the fixed points and minimisers of gentrain.worlds.

The numbers are of exact computations in float64 with the theory's own examples; each stands beside fresh instances.
"""

import itertools

import numpy as np
import pytest
from scipy.optimize import brentq

from gentrain import divergences, worlds
from gentrain.errors import ConfigError
from gentrain.worlds import GaussianMixture, Table, points

KEEP_TRUE = (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)
SYMMETRIC = np.array([[0.4, 0.1], [0.1, 0.4]])
SKEWED = np.array([[0.5, 0.1], [0.05, 0.35]])


def kl(p, q):
    return float(divergences.kl(p.ravel(), q.ravel()))


def table(seed, vocab, length, concentration=1.0):
    draw = np.random.default_rng(seed).dirichlet(np.full(vocab**length, concentration))
    return draw.reshape((vocab,) * length)


def marginals(p):
    return np.stack([p.sum(axis=tuple(j for j in range(p.ndim) if j != i)) for i in range(p.ndim)])


def product(p):
    found = np.ones(())
    for marginal in marginals(p):
        found = found[..., None] * marginal
    return found


# Two symbols


@pytest.mark.parametrize(
    "p", [SYMMETRIC, SKEWED, table(0, 2, 2), table(1, 4, 2)], ids=["symmetric", "skewed", "2", "4"]
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
    p, keep_true = table(seed, 3, 2), 0.4
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


def feeding(q, x, keep_true, coin):
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
                fed = weight * feeding(q, x, keep_true, coin)
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
    p = table(2, 2, 3, concentration=2.0)
    q = trained(p, keep_true, coin, label)
    expected = worlds.scheduled_sampling_conditionals(p, keep_true, coin, label)
    for found, law in zip(q, expected, strict=True):
        np.testing.assert_allclose(found, law, atol=1e-6)
    if label == "expert":
        assert kl(p, worlds.scheduled_sampling_fixed_point(p, keep_true, coin, label)) < 1e-8


@pytest.mark.parametrize("p", [table(3, 3, 4, 0.3), table(4, 2, 5)], ids=["3^4", "2^5"])
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
    p = table(1, 3, 4, concentration=0.3)
    assert float(divergences.total_correlation(p)) == pytest.approx(0.778577, abs=6e-7)
    for coin, expected in (("token", token), ("sequence", sequence)):
        q = worlds.scheduled_sampling_fixed_point(p, keep_true, coin)
        np.testing.assert_allclose([kl(p, q), float(divergences.total_correlation(q))], expected, atol=6e-7)


def test_one_parallel_pass_is_scheduled_sampling_for_two_symbols_only():
    for length, same in ((2, True), (3, False)):
        p = table(5, 3, length)
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


# The generalised Jensen-Shannon divergence

CORRELATED = np.array([[1.0, 0.9], [0.9, 1.0]])


@pytest.mark.parametrize(
    "real_prior, s, value",
    [
        (0.0, 1.0, 0.83037),
        (0.001, 0.99376, 0.82957),
        (0.01, 0.95968, 0.82414),
        (0.05, 0.86451, 0.80658),
        (0.1, 0.78092, 0.79036),
        (0.25, 0.61195, 0.75997),
        (0.5, 0.43589, 0.74365),
        (0.75, 0.31048, 0.75997),
        (0.9, 0.24330, 0.79036),
        (0.95, 0.21978, 0.80658),
        (0.99, 0.19798, 0.82414),
        (0.999, 0.19119, 0.82957),
        (1.0, 0.19, 0.83037),
    ],
)
def test_isotropic_fit_of_a_correlated_gaussian_in_numbers(real_prior, s, value):
    (best,) = worlds.js_minimiser(points.gaussian(np.zeros(2), CORRELATED), "isotropic", real_prior)
    np.testing.assert_allclose(best.parameters, [0, 0, s], atol=1e-5)
    assert best.value == pytest.approx(value, abs=1e-5)


def test_isotropic_fit_of_a_fresh_gaussian_has_its_closed_forms():
    rng = np.random.default_rng(20)
    root, mean = rng.normal(size=(2, 2)), rng.normal(size=2)
    covariance = root @ root.T + 0.3 * np.eye(2)
    fits = {}
    for real_prior in (0.0, 0.2, 0.5, 0.8, 1.0):
        fits[real_prior] = worlds.js_minimiser(points.gaussian(mean, covariance), "isotropic", real_prior)[0].parameters
        np.testing.assert_allclose(fits[real_prior][:2], mean, atol=1e-6)
        if real_prior in (0.0, 0.5, 1.0):
            assert fits[real_prior][2] == pytest.approx(worlds.gaussian_variance(covariance, real_prior), rel=1e-6)
    assert fits[0.2][2] * fits[0.8][2] == pytest.approx(np.linalg.det(covariance), rel=1e-6)
    assert worlds.gaussian_variance(np.diag([1.0, 2.0, 6.0]), 0) == 3
    assert worlds.gaussian_variance(np.diag([1.0, 2.0, 6.0]), 1) == pytest.approx(1.8)


def both_branches(real_prior):
    """(wide, narrow): the optimum that covers both modes, and the better of those that choose one."""
    optima = worlds.js_minimiser(points.bimodal(), "isotropic", real_prior)
    assert [each.value for each in optima] == sorted(each.value for each in optima)
    wide = [each for each in optima if each.parameters[1] > 1]
    narrow = [each for each in optima if each.parameters[1] < 1]
    return wide[0] if wide else None, narrow[0] if narrow else None


def test_the_best_gaussian_for_two_modes_jumps():
    gap = lambda prior: both_branches(prior)[0].value - both_branches(prior)[1].value
    assert brentq(gap, 0.5, 0.7, xtol=1e-4) == pytest.approx(0.602, abs=0.003)
    wide, narrow = both_branches(0.0)
    assert narrow is None
    np.testing.assert_allclose([wide.parameters[0], wide.parameters[1] ** 0.5], [-0.2, 2.3130], atol=1e-4)
    for real_prior, mean, sd in ((0.7, -1.9945, 0.709), (1.0, -1.9959, 0.7067)):
        wide, narrow = both_branches(real_prior)
        np.testing.assert_allclose([narrow.parameters[0], narrow.parameters[1] ** 0.5], [mean, sd], atol=2e-4)
        assert wide.value > narrow.value  # it survives as a local minimum
    wide, narrow = both_branches(0.1)
    assert wide.value < narrow.value and both_branches(0.02)[1] is None


def test_every_reported_optimum_is_a_local_minimum_of_the_divergence():
    rng = np.random.default_rng(21)
    target = GaussianMixture(np.array([0.5, 0.5]), np.array([[-1.5], [2.0]]), np.array([[[0.4]], [[0.9]]]))
    x = np.linspace(-15, 15, 3001)[:, None]
    p = np.exp(target.log_prob(x))
    for real_prior in (0.3, 0.9):

        def value(mean, variance, prior=real_prior):
            q = np.exp(points.gaussian([mean], [[variance]]).log_prob(x))
            return float(divergences.normalised_js(p / p.sum(), q / q.sum(), prior))

        for optimum in worlds.js_minimiser(target, "isotropic", real_prior):
            mean, variance = optimum.parameters
            assert value(mean, variance) == pytest.approx(optimum.value, abs=1e-8)
            for move in rng.normal(scale=0.02, size=(30, 2)):
                assert value(mean + move[0], variance * np.exp(move[1])) > optimum.value


def test_the_plane_has_modes_to_choose_from_too():
    best, *others = worlds.js_minimiser(points.blobs(), "isotropic", 1.0)
    np.testing.assert_allclose(best.parameters, [*points.blobs().means[0], 0.25], atol=0.01)
    assert {tuple(np.round(each.parameters[:2], 1)) for each in others} >= {(1.5, 1.0), (1.0, -2.0)}


def bits(a):
    return np.array([[a, 0.5 - a], [0.5 - a, a]])


def test_where_independent_bits_stop_being_symmetric():
    critical = {0.45: 0.9304, 0.46: 0.8653, 0.47: 0.8067, 0.48: 0.7538, 0.49: 0.7058}
    for a, expected in critical.items():
        assert worlds.critical_prior(a) == pytest.approx(expected, abs=1e-3)
        assert worlds.critical_prior(0.5 - a) == worlds.critical_prior(a)
    assert worlds.critical_prior(0.44) is None
    edge = brentq(lambda a: np.log(a / (0.5 - a)) - 2, 0.3, 0.49)
    assert edge == pytest.approx(0.44040, abs=5e-6)
    assert worlds.critical_prior(edge - 1e-6) is None and worlds.critical_prior(edge + 1e-6) > 0.999


@pytest.mark.parametrize("a", [0.45, 0.48])
def test_the_critical_prior_is_where_the_curvature_changes_sign(a):
    def value(lean, prior):
        law = np.array([0.5 - lean, 0.5 + lean])
        return float(divergences.normalised_js(bits(a).ravel(), np.outer(law, law).ravel(), prior))

    for off, sign in ((-0.01, 1), (0.01, -1)):
        prior = worlds.critical_prior(a) + off
        assert np.sign(value(1e-3, prior) - value(0, prior)) == sign


def test_factorised_fit_of_two_bits():
    for a, real_prior in ((0.44, 1.0), (0.48, 0.0), (0.48, 0.7)):
        best = worlds.js_minimiser(bits(a), "factorised", real_prior)[0]
        np.testing.assert_allclose(best.parameters, 0.5, atol=1e-4)
    first, second, *others = worlds.js_minimiser(bits(0.48), "factorised", 0.8)
    assert first.value == pytest.approx(second.value, abs=1e-10) and not others
    np.testing.assert_allclose(sorted([first.parameters[0, 0], second.parameters[0, 0]]), [0.0753, 0.9247], atol=1e-3)
    # Between the jump and the critical prior, 0.7538, the symmetric solution is still a local minimum.
    best, *_, symmetric = worlds.js_minimiser(bits(0.48), "factorised", 0.74)
    np.testing.assert_allclose(symmetric.parameters, 0.5, atol=1e-4)
    assert abs(best.parameters[0, 0] - 0.5) > 0.3


@pytest.mark.parametrize("real_prior", [0.0, 0.4, 1.0])
def test_factorised_fit_of_a_fresh_table(real_prior):
    p, rng = table(22, 3, 3), np.random.default_rng(23)
    best = worlds.js_minimiser(p, "factorised", real_prior)[0]
    outer = lambda m: np.einsum("a,b,c->abc", *m).ravel()
    value = lambda m: float(divergences.normalised_js(p.ravel(), outer(m), real_prior))
    assert value(best.parameters) == pytest.approx(best.value, abs=1e-10)
    for _ in range(50):
        moved = best.parameters * np.exp(0.02 * rng.normal(size=(3, 3)))
        assert value(moved / moved.sum(1, keepdims=True)) > best.value
    if real_prior == 0:
        np.testing.assert_allclose(best.parameters, marginals(p), atol=1e-6)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: worlds.scheduled_sampling_fixed_point(SKEWED, 1.5), "keep_true is 1.5"),
        (lambda: worlds.scheduled_sampling_fixed_point(SKEWED, 0.5, coin="tokens"), "coin 'tokens'"),
        (lambda: worlds.scheduled_sampling_fixed_point(SKEWED, 0.5, label="gold"), "label 'gold'"),
        (lambda: worlds.scheduled_sampling_fixed_point(table(0, 2, 16), 0.5), "pairs of prefixes"),
        (lambda: worlds.full_gradient_minimum(np.array([[0.5, 0.5], [0, 0]]), 0.5), "undefined"),
        (lambda: worlds.js_minimiser(points.bimodal(), "isotropic", -0.1), "real_prior is -0.1"),
        (lambda: worlds.js_minimiser(points.bimodal(), "factorised", 0.5), "'isotropic' fits mixtures"),
        (lambda: worlds.js_minimiser(SKEWED, "isotropic", 0.5), "'factorised' tables"),
        (lambda: worlds.js_minimiser(points.grid(), "isotropic", 0.5), "too large"),
        (lambda: worlds.gaussian_variance(np.eye(3), 0.5), "no closed form"),
        (lambda: worlds.critical_prior(0.5), "between 0 and 1/2"),
    ],
)
def test_what_cannot_be_is_an_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
