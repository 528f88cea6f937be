"""Closed forms and printed numbers against the minimisers of the generalised Jensen-Shannon divergence.

The numbers are of exact computations in float64 with the theory's own examples; each stands beside fresh instances.
"""

import numpy as np
import pytest
from scipy.optimize import brentq

from gentrain import divergences, worlds
from gentrain.errors import ConfigError
from gentrain.worlds import GaussianMixture, points
from tests.worlds.helpers import marginals, random_table

SKEWED = np.array([[0.5, 0.1], [0.05, 0.35]])
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
    (best,) = worlds.js_minima(points.gaussian(np.zeros(2), CORRELATED), "isotropic", real_prior)
    np.testing.assert_allclose(best.parameters, [0, 0, s], atol=1e-5)
    assert best.value == pytest.approx(value, abs=1e-5)


def test_isotropic_fit_of_a_fresh_gaussian_has_its_closed_forms():
    rng = np.random.default_rng(20)
    root, mean = rng.normal(size=(2, 2)), rng.normal(size=2)
    covariance = root @ root.T + 0.3 * np.eye(2)
    fits = {}
    for real_prior in (0.0, 0.2, 0.5, 0.8, 1.0):
        fits[real_prior] = worlds.js_minima(points.gaussian(mean, covariance), "isotropic", real_prior)[0].parameters
        np.testing.assert_allclose(fits[real_prior][:2], mean, atol=1e-6)
        if real_prior in (0.0, 0.5, 1.0):
            assert fits[real_prior][2] == pytest.approx(worlds.gaussian_variance(covariance, real_prior), rel=1e-6)
    assert fits[0.2][2] * fits[0.8][2] == pytest.approx(np.linalg.det(covariance), rel=1e-6)
    assert worlds.gaussian_variance(np.diag([1.0, 2.0, 6.0]), 0) == 3
    assert worlds.gaussian_variance(np.diag([1.0, 2.0, 6.0]), 1) == pytest.approx(1.8)


def both_branches(real_prior):
    """(wide, narrow): the optimum that covers both modes, and the better of those that choose one."""
    optima = worlds.js_minima(points.bimodal(), "isotropic", real_prior)
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

        for optimum in worlds.js_minima(target, "isotropic", real_prior):
            mean, variance = optimum.parameters
            assert value(mean, variance) == pytest.approx(optimum.value, abs=1e-8)
            for move in rng.normal(scale=0.02, size=(30, 2)):
                assert value(mean + move[0], variance * np.exp(move[1])) > optimum.value


def test_the_plane_has_modes_to_choose_from_too():
    best, *others = worlds.js_minima(points.blobs(), "isotropic", 1.0)
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
        best = worlds.js_minima(bits(a), "factorised", real_prior)[0]
        np.testing.assert_allclose(best.parameters, 0.5, atol=1e-4)
    first, second, *others = worlds.js_minima(bits(0.48), "factorised", 0.8)
    assert first.value == pytest.approx(second.value, abs=1e-10) and not others
    np.testing.assert_allclose(sorted([first.parameters[0, 0], second.parameters[0, 0]]), [0.0753, 0.9247], atol=1e-3)
    # Between the jump and the critical prior, 0.7538, the symmetric solution is still a local minimum.
    best, *_, symmetric = worlds.js_minima(bits(0.48), "factorised", 0.74)
    np.testing.assert_allclose(symmetric.parameters, 0.5, atol=1e-4)
    assert abs(best.parameters[0, 0] - 0.5) > 0.3


@pytest.mark.parametrize("real_prior", [0.0, 0.4, 1.0])
def test_factorised_fit_of_a_fresh_table(real_prior):
    p, rng = random_table(22, 3, 3), np.random.default_rng(23)
    best = worlds.js_minima(p, "factorised", real_prior)[0]
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
        (lambda: worlds.js_minima(points.bimodal(), "isotropic", -0.1), "real_prior is -0.1"),
        (lambda: worlds.js_minima(points.bimodal(), "factorised", 0.5), "'isotropic' fits mixtures"),
        (lambda: worlds.js_minima(SKEWED, "isotropic", 0.5), "'factorised' tables"),
        (lambda: worlds.js_minima(points.grid(), "isotropic", 0.5), "too large"),
        (lambda: worlds.gaussian_variance(np.eye(3), 0.5), "no closed form"),
        (lambda: worlds.critical_prior(0.5), "between 0 and 1/2"),
    ],
)
def test_what_cannot_be_is_an_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
