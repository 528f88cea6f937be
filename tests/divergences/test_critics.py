"""The f-divergence, its conjugate and the optimal critic against the divergence itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import divergences as d
from tests.divergences.reference import INNER, SEEDS, random_pair


@pytest.mark.parametrize("seed", SEEDS)
def test_generator_of_the_f_divergence(seed):
    p, q = random_pair(seed)
    for pi in INNER:
        np.testing.assert_allclose(np.sum(q * d.f_js(p / q, pi)), d.js(p, q, pi), rtol=1e-12)
        assert d.f_js(1.0, pi) == 0
        np.testing.assert_allclose(d.f_js(0.0, pi), -(1 - pi) * np.log1p(-pi), rtol=1e-13)
        h = 1e-4
        curvature = (d.f_js(1 + h, pi) + d.f_js(1 - h, pi)) / h**2
        np.testing.assert_allclose(curvature, pi * (1 - pi), rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_variational_bound_is_tight_at_the_optimal_critic_and_nowhere_else(seed):
    p, q = random_pair(seed)
    for pi in (0.05, 0.5, 0.9):
        best = pi * np.log(p / (pi * p + (1 - pi) * q))
        bound = lambda t, pi=pi: np.sum(p * t) - np.sum(q * d.js_conjugate(t, pi))
        np.testing.assert_allclose(bound(best), d.js(p, q, pi), rtol=1e-11)
        edge = -pi * np.log(pi)
        for shift in (-0.01, 0.01):
            assert bound(np.minimum(best + shift, edge - 1e-6)) < bound(best)
        # The conjugate is the supremum over u, the domain ends where it does, and the activation covers it.
        u = np.exp(np.linspace(-12, 12, 20001))
        for t in (-2.0, -0.1, 0.5 * edge):
            np.testing.assert_allclose(d.js_conjugate(t, pi), np.max(u * t - d.f_js(u, pi)), atol=1e-5)
        assert np.all(d.js_conjugate(np.asarray([edge * (1 + 1e-9), edge + 1]), pi) == np.inf)
        assert np.isfinite(d.js_conjugate(edge - 1e-9, pi))
        reached = d.js_activation(np.asarray([-1e3, 0.0, 1e3]), pi)
        np.testing.assert_allclose(reached, [edge - 1e3, edge - np.log(2), edge], rtol=1e-12)
    np.testing.assert_array_equal(d.js_conjugate(np.asarray([-1, 0, 1]), np.asarray([0, 1, 1])), [0, 0, np.inf])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_optimal_logit_is_the_posterior_of_real(seed):
    p, q = random_pair(seed)
    for pi in INNER:
        posterior = pi * p / (pi * p + (1 - pi) * q)
        logit = d.optimal_logit(np.log(p), np.log(q), pi)
        np.testing.assert_allclose(1 / (1 + np.exp(-logit)), posterior, rtol=1e-12)


@pytest.mark.parametrize("namespace", [np, jnp])
def test_at_the_ends_the_optimal_logit_is_the_prior_s_whatever_the_example(namespace):
    log_p, log_q = (namespace.asarray(x) for x in ([-1.0, -np.inf, -2.0, -np.inf], [-np.inf, -1.0, -2.0, -np.inf]))
    np.testing.assert_array_equal(d.optimal_logit(log_p, log_q, 0.0), np.full(4, -np.inf))
    np.testing.assert_array_equal(d.optimal_logit(log_p, log_q, 1.0), np.full(4, np.inf))
    np.testing.assert_array_equal(d.optimal_logit(log_p, log_q, 0.5), [np.inf, -np.inf, 0, 0])


def test_a_negative_ratio_is_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        d.f_js(np.asarray([0.5, -0.1]), 0.3)
