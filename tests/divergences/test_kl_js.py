"""Kullback-Leibler and Jensen-Shannon divergences against their definitions and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import divergences as d
from tests.divergences.reference import INNER, PRIORS, SEEDS, naive_js, naive_kl, random_pair


@pytest.mark.parametrize("seed", SEEDS)
def test_they_are_their_definitions(seed):
    p, q = random_pair(seed, shape=(4,))
    np.testing.assert_allclose(d.entropy(p), -np.sum(p * np.log(p), -1), rtol=1e-13)
    np.testing.assert_allclose(d.kl(p, q), naive_kl(p, q), rtol=1e-12)
    for pi in INNER:
        np.testing.assert_allclose(d.js(p, q, pi), naive_js(p, q, pi), rtol=1e-11)
        np.testing.assert_allclose(d.normalised_js(p, q, pi), naive_js(p, q, pi) / (pi * (1 - pi)), rtol=1e-11)
    assert isinstance(d.kl(p, q), np.ndarray) and d.kl(p, q).dtype == np.float64


@pytest.mark.parametrize("seed", SEEDS)
def test_its_ends_are_the_two_kls_and_it_is_continuous_there(seed):
    p, q = random_pair(seed)
    np.testing.assert_allclose(d.normalised_js(p, q, np.asarray([0, 1])), [d.kl(p, q), d.kl(q, p)], rtol=1e-15)
    np.testing.assert_allclose(d.normalised_js(p, q, 1e-9), d.kl(p, q), rtol=1e-6)
    np.testing.assert_allclose(d.normalised_js(p, q, 1 - 1e-9), d.kl(q, p), rtol=1e-6)
    np.testing.assert_allclose(d.js(p, q, np.asarray([0, 1])), 0, atol=0)


def test_near_the_ends_it_keeps_all_its_digits():
    """Against fractions: 60 digits of JS_pi / (pi (1 - pi)) where the plain formula has none left."""
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    p, q = [np.asarray(masses) for masses in ([0.5, 0.25, 0.25, 0.0], [0.125, 0.375, 0.375, 0.125])]
    for pi in (1e-12, 1e-9, 1e-6, 1e-3, 0.5, 1 - 2.0**-30):
        weight, total = Decimal(pi), Decimal(0)
        for a, b in zip(map(Decimal, p), map(Decimal, q), strict=True):
            mixture = weight * a + (1 - weight) * b
            total += sum(w * x * (x / mixture).ln() for w, x in ((weight, a), (1 - weight, b)) if x)
        np.testing.assert_allclose(d.normalised_js(p, q, pi), float(total / (weight * (1 - weight))), rtol=1e-14)


@pytest.mark.parametrize("step", [1e-2, 1e-5, 1e-8])
def test_near_equality_every_prior_gives_half_chi_square(step):
    q = np.full(4, 0.25)
    p = q + step * np.asarray([0.1, -0.1, 0.05, -0.05])
    half = np.sum((p - q) ** 2 / q) / 2
    np.testing.assert_allclose(d.normalised_js(p, q, PRIORS), half, rtol=2 * step + 1e-6)
    np.testing.assert_allclose(d.frontier_integral(p, q), 2 * half / 6, rtol=2 * step + 1e-6)


def test_zeros_count_for_nothing_or_for_everything():
    p, q = np.asarray([0.5, 0.5, 0, 0]), np.asarray([0.25, 0, 0.75, 0])
    with np.errstate(all="raise"):
        assert d.kl(p, q) == d.kl(q, p) == d.normalised_js(p, q, 0) == d.normalised_js(p, q, 1) == np.inf
        assert d.js(p, q, 0) == d.js(p, q, 1) == 0
        np.testing.assert_allclose(d.entropy(p), np.log(2), rtol=1e-15)
        for pi in INNER:
            mixture = pi * p + (1 - pi) * q
            sides = (np.sum(a[a > 0] * np.log(a[a > 0] / mixture[a > 0])) for a in (p, q))
            expected = sum(w * side for w, side in zip((pi, 1 - pi), sides, strict=True))
            np.testing.assert_allclose(d.js(p, q, pi), expected, rtol=1e-13)
        disjoint = np.asarray([1.0, 0]), np.asarray([0, 1.0])
        np.testing.assert_allclose(d.js(*disjoint, 0.3), -0.3 * np.log(0.3) - 0.7 * np.log(0.7), rtol=1e-15)
        assert d.frontier_integral(*disjoint) == 1
        assert d.frontier_integral(p, p) == d.kl(p, p) == 0
        np.testing.assert_allclose(d.kl(np.asarray([1.0, 0]), np.asarray([1e-300, 1.0])), 300 * np.log(10), rtol=1e-15)


@pytest.mark.parametrize("seed", SEEDS)
def test_swapping_the_laws_swaps_the_prior(seed):
    p, q = random_pair(seed)
    np.testing.assert_allclose(d.normalised_js(p, q, PRIORS), d.normalised_js(q, p, 1 - PRIORS), rtol=1e-8)
    assert abs(d.normalised_js(p, q, 0.1) / d.normalised_js(q, p, 0.1) - 1) > 1e-3  # and it is not symmetric


@pytest.mark.parametrize("seed", SEEDS)
def test_compensation_identity(seed):
    """JS_pi[P||Q] + KL[M||P] = (1 - pi) KL[Q||P]."""
    p, q = random_pair(seed)
    for pi in INNER:
        mixture = pi * p + (1 - pi) * q
        np.testing.assert_allclose(d.js(p, q, pi) + d.kl(mixture, p), (1 - pi) * d.kl(q, p), rtol=1e-12)


def test_a_small_prior_is_not_yet_likelihood():
    """Six states, log P/Q up to 4.6: JS_pi / pi reaches KL[P||Q] = 4.030 slowly."""
    p, q = random_pair(0)
    np.testing.assert_allclose(d.kl(p, q), 4.030, atol=5e-4)
    for pi, expected in ((1e-2, 2.812), (1e-4, 3.949), (1e-6, 4.0293)):
        np.testing.assert_allclose(d.js(p, q, pi) / pi, expected, atol=6e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_frontier_integral_is_the_mean_of_the_dial(seed):
    p, q = random_pair(seed)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    integral = sum(weight / 2 * naive_js(p, q, (1 + node) / 2) for node, weight in zip(nodes, weights, strict=True))
    np.testing.assert_allclose(d.frontier_integral(p, q), 2 * integral, atol=1e-6)
    cells = (p + q) / 2 - p * q * np.log(p / q) / (p - q)
    np.testing.assert_allclose(d.frontier_integral(p, q), cells.sum(), rtol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mauve_curve_and_the_dial_are_one_thing(seed):
    p, q = random_pair(seed)
    priors = np.linspace(0, 1, 25)
    from_p, from_q = d.mauve_curve(p, q, priors)
    np.testing.assert_allclose(priors * from_p + (1 - priors) * from_q, d.js(p, q, priors), rtol=1e-12)
    np.testing.assert_allclose(from_p, [naive_kl(p, pi * p + (1 - pi) * q) for pi in priors], atol=1e-14)
    assert from_p[-1] == from_q[0] == 0 and from_p[0] == d.kl(p, q) and from_q[-1] == d.kl(q, p)
    np.testing.assert_allclose(
        d.mauve_curve(p, q, priors, scale=5), np.exp(-5 * np.stack([from_p, from_q])), rtol=1e-12
    )


@pytest.mark.parametrize("pi", [0, 1e-6, 0.5, 1 - 1e-6, 1])
def test_float32_gradients_are_finite_and_right_at_extreme_logits(pi):
    random = np.random.default_rng(0)
    ordinary = random.normal(size=(2, 3, 50)) * 3
    total = lambda a, b: jnp.sum(d.normalised_js_from_logits(a, b, pi))
    gradient = jax.jit(jax.value_and_grad(total, (0, 1)))
    value, by_logit = gradient(*jnp.asarray(ordinary, jnp.float32))
    np.testing.assert_allclose(value, d.normalised_js_from_logits(*ordinary, pi).sum(), rtol=1e-4)
    direction = random.normal(size=ordinary.shape)
    h = 1e-5
    along = [d.normalised_js_from_logits(*(ordinary + sign * h * direction), pi).sum() for sign in (1, -1)]
    slope = sum(np.sum(np.asarray(g, np.float64) * v) for g, v in zip(by_logit, direction, strict=True))
    np.testing.assert_allclose(slope, (along[0] - along[1]) / (2 * h), rtol=2e-4)
    spike = np.where(np.arange(50) == 7, 1e4, 0.0) * np.ones((3, 1))
    barred = np.where(np.arange(50) < 5, -np.inf, ordinary[0])
    for a, b in [(spike, -spike), (spike, spike), (ordinary[0], spike), (1e4 * ordinary[0], 1e3 * ordinary[1])]:
        value, by_logit = gradient(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
        assert np.isfinite(value) and value >= 0 and all(np.all(np.isfinite(g)) for g in by_logit)
    value, by_logit = gradient(jnp.asarray(barred, jnp.float32), jnp.asarray(barred + 1, jnp.float32))
    assert abs(value) < 1e-6 and all(np.all(np.isfinite(g)) for g in by_logit)


def test_the_dial_is_continuous_in_float32_where_the_plain_formula_is_not():
    logits = jnp.asarray(np.random.default_rng(3).normal(size=(2, 64)), jnp.float32)
    p, q = (np.exp(a) / np.exp(a).sum() for a in np.asarray(logits, np.float64))
    for pi in (1e-6, 1e-5, 1 - 1e-5):
        np.testing.assert_allclose(d.normalised_js_from_logits(*logits, pi), d.normalised_js(p, q, pi), rtol=3e-6)


def test_the_gradient_vanishes_and_the_curvature_does_not_where_the_laws_agree():
    logits = jnp.asarray([0.3, -1.0, 2.0], jnp.float32)
    p = np.exp(np.asarray(logits, np.float64)) / np.exp(np.asarray(logits, np.float64)).sum()
    for pi in (0.0, 0.3):
        value = lambda b, pi=pi: d.normalised_js_from_logits(logits, b, pi)
        np.testing.assert_allclose(jax.jit(jax.grad(value))(logits), 0, atol=1e-7)
        np.testing.assert_allclose(jax.jit(jax.hessian(value))(logits), np.diag(p) - np.outer(p, p), atol=1e-5)
