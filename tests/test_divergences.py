"""Divergences against their definitions, their identities and numbers worked out by hand; exact work is in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import divergences as d

PRIORS = np.asarray([0, 1e-9, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-9, 1])
INNER = PRIORS[2:-2]
SEEDS = [0, 1, 2]


def laws(seed, states=6, alpha=1.0, shape=()):
    p, q = np.random.default_rng(seed).dirichlet(np.full(states, alpha), (2, *shape))
    return p, q


def naive_kl(p, q):
    return np.sum(p * np.log(p / q), axis=-1)


def naive_js(p, q, pi):
    mixture = pi * p + (1 - pi) * q
    return pi * naive_kl(p, mixture) + (1 - pi) * naive_kl(q, mixture)


# The dial.


@pytest.mark.parametrize("seed", SEEDS)
def test_they_are_their_definitions(seed):
    p, q = laws(seed, shape=(4,))
    np.testing.assert_allclose(d.entropy(p), -np.sum(p * np.log(p), -1), rtol=1e-13)
    np.testing.assert_allclose(d.kl(p, q), naive_kl(p, q), rtol=1e-12)
    for pi in INNER:
        np.testing.assert_allclose(d.js(p, q, pi), naive_js(p, q, pi), rtol=1e-11)
        np.testing.assert_allclose(d.normalised_js(p, q, pi), naive_js(p, q, pi) / (pi * (1 - pi)), rtol=1e-11)
    assert isinstance(d.kl(p, q), np.ndarray) and d.kl(p, q).dtype == np.float64


@pytest.mark.parametrize("seed", SEEDS)
def test_its_ends_are_the_two_kls_and_it_is_continuous_there(seed):
    p, q = laws(seed)
    np.testing.assert_allclose(d.normalised_js(p, q, np.asarray([0, 1])), [d.kl(p, q), d.kl(q, p)], rtol=1e-15)
    np.testing.assert_allclose(d.normalised_js(p, q, 1e-9), d.kl(p, q), rtol=1e-6)
    np.testing.assert_allclose(d.normalised_js(p, q, 1 - 1e-9), d.kl(q, p), rtol=1e-6)
    np.testing.assert_allclose(d.js(p, q, np.asarray([0, 1])), 0, atol=0)


def test_near_the_ends_it_keeps_all_its_digits():
    """Against fractions: 60 digits of JS_pi / (pi (1 - pi)) where the plain formula has none left."""
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    p, q = [np.asarray(law) for law in ([0.5, 0.25, 0.25, 0.0], [0.125, 0.375, 0.375, 0.125])]
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
    p, q = laws(seed)
    np.testing.assert_allclose(d.normalised_js(p, q, PRIORS), d.normalised_js(q, p, 1 - PRIORS), rtol=1e-8)
    assert abs(d.normalised_js(p, q, 0.1) / d.normalised_js(q, p, 0.1) - 1) > 1e-3  # and it is not symmetric


@pytest.mark.parametrize("seed", SEEDS)
def test_compensation_identity(seed):
    """JS_pi[P||Q] + KL[M||P] = (1 - pi) KL[Q||P]."""
    p, q = laws(seed)
    for pi in INNER:
        mixture = pi * p + (1 - pi) * q
        np.testing.assert_allclose(d.js(p, q, pi) + d.kl(mixture, p), (1 - pi) * d.kl(q, p), rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_js_is_what_a_draw_tells_of_its_label(seed):
    p, q = laws(seed)
    for pi in INNER:
        labelled = np.stack([pi * p, (1 - pi) * q])
        np.testing.assert_allclose(d.js(p, q, pi), d.mutual_information(labelled), rtol=1e-12)
        assert d.js(p, q, pi) <= d.entropy(np.asarray([pi, 1 - pi]))


def test_a_small_prior_is_not_yet_likelihood():
    """Six states, log P/Q up to 4.6: JS_pi / pi reaches KL[P||Q] = 4.030 slowly."""
    p, q = laws(0)
    np.testing.assert_allclose(d.kl(p, q), 4.030, atol=5e-4)
    for pi, expected in ((1e-2, 2.812), (1e-4, 3.949), (1e-6, 4.0293)):
        np.testing.assert_allclose(d.js(p, q, pi) / pi, expected, atol=6e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_frontier_integral_is_the_mean_of_the_dial(seed):
    p, q = laws(seed)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    integral = sum(weight / 2 * naive_js(p, q, (1 + node) / 2) for node, weight in zip(nodes, weights, strict=True))
    np.testing.assert_allclose(d.frontier_integral(p, q), 2 * integral, atol=1e-6)
    cells = (p + q) / 2 - p * q * np.log(p / q) / (p - q)
    np.testing.assert_allclose(d.frontier_integral(p, q), cells.sum(), rtol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mauve_curve_and_the_dial_are_one_thing(seed):
    p, q = laws(seed)
    priors = np.linspace(0, 1, 25)
    from_p, from_q = d.mauve_curve(p, q, priors)
    np.testing.assert_allclose(priors * from_p + (1 - priors) * from_q, d.js(p, q, priors), rtol=1e-12)
    np.testing.assert_allclose(from_p, [naive_kl(p, pi * p + (1 - pi) * q) for pi in priors], atol=1e-14)
    assert from_p[-1] == from_q[0] == 0 and from_p[0] == d.kl(p, q) and from_q[-1] == d.kl(q, p)
    np.testing.assert_allclose(
        d.mauve_curve(p, q, priors, scale=5), np.exp(-5 * np.stack([from_p, from_q])), rtol=1e-12
    )


# As an f-divergence.


@pytest.mark.parametrize("seed", SEEDS)
def test_generator_of_the_f_divergence(seed):
    p, q = laws(seed)
    for pi in INNER:
        np.testing.assert_allclose(np.sum(q * d.f_js(p / q, pi)), d.js(p, q, pi), rtol=1e-12)
        assert d.f_js(1.0, pi) == 0
        np.testing.assert_allclose(d.f_js(0.0, pi), -(1 - pi) * np.log1p(-pi), rtol=1e-13)
        h = 1e-4
        curvature = (d.f_js(1 + h, pi) + d.f_js(1 - h, pi)) / h**2
        np.testing.assert_allclose(curvature, pi * (1 - pi), rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_variational_bound_is_tight_at_the_optimal_critic_and_nowhere_else(seed):
    p, q = laws(seed)
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
    p, q = laws(seed)
    for pi in INNER:
        posterior = pi * p / (pi * p + (1 - pi) * q)
        logit = d.optimal_logit(np.log(p), np.log(q), pi)
        np.testing.assert_allclose(1 / (1 + np.exp(-logit)), posterior, rtol=1e-12)


# Two symbols.


def mixed(p, eps):
    """The fixed point of scheduled sampling without gradients through the sample: eps P + (1 - eps) P1 P2."""
    return eps * p + (1 - eps) * np.outer(p.sum(1), p.sum(0))


def test_two_symbol_table():
    """Huszár's two-symbol example at P = [[.4, .1], [.1, .4]]: what scheduled sampling converges to, for each eps."""
    p = np.asarray([[0.4, 0.1], [0.1, 0.4]])
    np.testing.assert_allclose(d.mutual_information(p), 0.192745, atol=5e-7)
    np.testing.assert_allclose(d.lautum_information(p), 0.223144, atol=5e-7)
    np.testing.assert_allclose(d.entropy(p.ravel()), 1.193550, atol=5e-7)
    rows = {
        1.00: (0.8000, 0, 0, 0, 0.192745),
        0.75: (0.7250, 0.015061, 0.016206, 0.003895, 0.104978),
        0.50: (0.6500, 0.054188, 0.060900, 0.014244, 0.045701),
        0.25: (0.5750, 0.113439, 0.130464, 0.029958, 0.011293),
        0.10: (0.5300, 0.158505, 0.183356, 0.041789, 0.001801),
        0.00: (0.5000, 0.192745, 0.223144, 0.050672, 0),
    }
    for eps, row in rows.items():
        q = mixed(p, eps)
        a, b = p.ravel(), q.ravel()
        found = (q[0, 0] / q[0].sum(), d.kl(a, b), d.kl(b, a), d.js(a, b, 0.5), d.mutual_information(q))
        np.testing.assert_allclose(found, row, atol=6e-7)


def scheduled_sampling(p, q1, q2, eps):
    """D_SS[P||Q] of two symbols, q2[z] the law of the second after z."""
    p1, p2, given = p.sum(1), p.sum(0), p / p.sum(1, keepdims=True)
    sampled, fed = q1 @ d.kl(np.broadcast_to(p2, q2.shape), q2), p1 @ d.kl(given, q2)
    return d.kl(p1, q1) + (1 - eps) * sampled + eps * fed


@pytest.mark.parametrize("seed", [None, *SEEDS])
def test_what_scheduled_sampling_pays_for_the_truth_is_lautum_information(seed):
    p = np.asarray([[0.50, 0.10], [0.05, 0.35]]) if seed is None else laws(seed, 9)[0].reshape(3, 3)
    if seed is None:
        np.testing.assert_allclose([d.mutual_information(p), d.lautum_information(p)], [0.267094, 0.337315], atol=5e-7)
    p1, p2, given = p.sum(1), p.sum(0), p / p.sum(1, keepdims=True)
    semi = {0.75: 0.05740327, 0.5: 0.07180990, 0.25: 0.05154977, 0: 0}
    for eps, value in semi.items():
        at_truth = scheduled_sampling(p, p1, given, eps)
        np.testing.assert_allclose(at_truth, (1 - eps) * d.lautum_information(p), rtol=1e-11)
        best = eps * given + (1 - eps) * p2
        at_best = scheduled_sampling(p, p1, best, eps)
        np.testing.assert_allclose(at_best, p1 @ d.js(given, np.broadcast_to(p2, given.shape), eps), atol=1e-14)
        if seed is None:
            np.testing.assert_allclose(at_best, value, atol=6e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_equations_four_and_five_of_huszar_differ_by_mutual_information(seed):
    p, r = laws(seed, 9)[0].reshape(3, 3), laws(seed + 10, 3)[0]
    p1, p2, given = p.sum(1), p.sum(0), p / p.sum(1, keepdims=True)
    four, five = p1 @ d.kl(given, np.broadcast_to(r, given.shape)), d.kl(p2, r)
    np.testing.assert_allclose(four - five, d.mutual_information(p), rtol=1e-10)
    assert four - five > 1e-2


# Sequences.


def strings(seed, vocab=3, length=3, alpha=0.5):
    p, q = laws(seed, vocab**length, alpha)
    return p.reshape((vocab,) * length), q.reshape((vocab,) * length)


def test_total_correlation_is_what_a_product_of_marginals_loses():
    p = np.random.default_rng(1).dirichlet(np.full(81, 0.3)).reshape((3,) * 4)
    np.testing.assert_allclose(d.total_correlation(p), 0.778577, atol=5e-7)
    marginals = d.position_marginals(p)
    np.testing.assert_allclose(d.total_correlation(p), d.entropy(marginals).sum() - d.entropy(p.ravel()), rtol=1e-12)
    product = np.einsum("a,b,c,d->abcd", *marginals)
    np.testing.assert_allclose(d.position_marginals(product), marginals, atol=1e-15)
    assert abs(d.total_correlation(product)) < 1e-15
    assert d.mutual_information(p.sum((2, 3))) == pytest.approx(d.total_correlation(p.sum((2, 3))), rel=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pi", [0, 0.1, 0.5, 0.9, 1])
def test_chain_rule_of_js_needs_the_posterior_of_the_prefix(seed, pi):
    p, q = strings(seed)
    whole = d.js(p.ravel(), q.ravel(), pi)
    np.testing.assert_allclose(d.js_by_steps(p, q, pi).sum(), whole, rtol=0, atol=1e-12)
    np.testing.assert_allclose(d.js_by_steps(p, q, pi)[0], d.js(p.sum((1, 2)), q.sum((1, 2)), pi), atol=1e-15)
    if 0 < pi < 1:
        for prefixes in ("data", "model"):
            off = abs(d.token_js(p, q, pi, prefixes).sum() - whole)
            assert off > 1e-2 * whole and (pi != 0.5 or off > 1e-2)


def test_chain_rule_where_prefixes_are_missing():
    p, q = strings(0)
    p[0], q[2, 1] = 0, 0
    p, q = p / p.sum(), q / q.sum()
    with np.errstate(all="raise"):
        for pi in (0.1, 0.5):
            np.testing.assert_allclose(d.js_by_steps(p, q, pi).sum(), d.js(p.ravel(), q.ravel(), pi), atol=1e-12)
        assert d.token_kl(p, q).sum() == np.inf


@pytest.mark.parametrize("seed", SEEDS)
def test_token_averages_are_their_definitions(seed):
    p, q = strings(seed)
    given = lambda table: table / table.sum(-1, keepdims=True)
    for prefixes, law in (("data", p), ("model", q)):
        last = np.sum(law.sum(-1) * naive_js(given(p), given(q), 0.3))
        np.testing.assert_allclose(d.token_js(p, q, 0.3, prefixes)[-1], last, rtol=1e-11)
        last = np.sum(law.sum(-1) * naive_kl(given(p), given(q)))
        np.testing.assert_allclose(d.token_kl(p, q, prefixes)[-1], last, rtol=1e-11)
    np.testing.assert_allclose(d.token_kl(p, q).sum(), d.kl(p.ravel(), q.ravel()), rtol=1e-12)
    np.testing.assert_allclose(d.token_kl(q, p).sum(), d.kl(q.ravel(), p.ravel()), rtol=1e-12)
    gap = d.token_kl(p, q, "model").sum() - d.token_kl(p, q).sum()
    assert abs(gap) > 1e-2  # exposure bias; the first step has no part in it
    np.testing.assert_allclose(d.token_kl(p, q, "model")[0], d.token_kl(p, q)[0], rtol=1e-15)


# From samples.


@pytest.mark.parametrize("seed", SEEDS)
def test_monte_carlo_within_four_standard_errors(seed):
    p, q = laws(seed)
    random = np.random.default_rng(seed + 100)
    real, fake = random.choice(6, (50, 4000), p=p), random.choice(6, (50, 2000), p=q)
    log_p, log_q = np.log(p), np.log(q)
    for found, exact in [
        (d.monte_carlo_kl(log_p[real], log_q[real]), d.kl(p, q)),
        *(
            (d.monte_carlo_js(log_p[real], log_q[real], log_p[fake], log_q[fake], pi), d.js(p, q, pi))
            for pi in (0.01, 0.5, 0.9)
        ),
    ]:
        assert np.abs(found.value[0] - exact) < 4 * found.standard_error[0]
        spread = np.std(found.value, ddof=1)  # fifty estimates scatter as each of them says, to a tenth or two
        assert 0.6 < spread / np.mean(found.standard_error) < 1.5
        assert abs(found.value.mean() - exact) < 4 * spread / 50**0.5


def test_one_sample_has_no_standard_error():
    with pytest.raises(ValueError, match="two samples or more, not 1"):
        d.monte_carlo_kl(np.zeros(1), np.zeros(1))


# In JAX.


def test_numpy_and_jax_agree_and_jit_and_vmap_change_nothing():
    p, q = laws(0, shape=(3,))
    table, other = strings(0)
    pi = np.asarray([0.0, 0.3, 1.0])
    calls = {
        "kl": (d.kl, (p, q)),
        "js": (d.js, (p, q, pi)),
        "normalised_js": (d.normalised_js, (p, q, pi)),
        "from_log": (d.kl_from_log, (np.log(p), np.log(q))),
        "from_logits": (d.normalised_js_from_logits, (np.log(p) + 1, np.log(q) - 2, pi)),
        "frontier": (d.frontier_integral, (p, q)),
        "mauve": (d.mauve_curve, (p[0], q[0], pi)),
        "steps": (d.js_by_steps, (table, other, 0.3)),
        "token_js": (d.token_js, (table, other, 0.3)),
        "token_kl": (d.token_kl, (table, other)),
        "correlation": (d.total_correlation, (table,)),
        "f": (d.f_js, (p / q, 0.3)),
        "conjugate": (d.js_conjugate, (-p, 0.3)),
        "logit": (d.optimal_logit, (np.log(p), np.log(q), 0.3)),
        "monte_carlo": (d.monte_carlo_js, (np.log(p), np.log(q), np.log(q), np.log(p), 0.3)),
    }
    compiled = jax.jit(lambda arguments: {name: calls[name][0](*values) for name, values in arguments.items()})
    arguments = {name: [jnp.asarray(value, jnp.float32) for value in values] for name, (_, values) in calls.items()}
    found = compiled(arguments)
    for name, (function, values) in calls.items():
        expected = function(*values)
        for one, two in zip(jax.tree.leaves(found[name]), jax.tree.leaves(expected), strict=True):
            assert one.dtype == jnp.float32 and two.dtype == np.float64
            np.testing.assert_allclose(one, two, rtol=2e-4, atol=2e-6, err_msg=name)
    mapped = jax.vmap(d.normalised_js, (0, 0, 0))(*arguments["normalised_js"])
    np.testing.assert_allclose(mapped, d.normalised_js(*arguments["normalised_js"]), rtol=1e-6)
    assert isinstance(d.normalised_js(*arguments["normalised_js"]), jax.Array)


@pytest.mark.parametrize("pi", [0, 1e-6, 0.5, 1 - 1e-6, 1])
def test_float32_gradients_are_finite_and_right_at_extreme_logits(pi):
    random = np.random.default_rng(0)
    ordinary = random.normal(size=(2, 3, 50)) * 3
    value = lambda a, b: jnp.sum(d.normalised_js_from_logits(a, b, pi))
    gradient = jax.jit(jax.value_and_grad(value, (0, 1)))
    found, by_logit = gradient(*jnp.asarray(ordinary, jnp.float32))
    np.testing.assert_allclose(found, d.normalised_js_from_logits(*ordinary, pi).sum(), rtol=1e-4)
    direction = random.normal(size=ordinary.shape)
    h = 1e-5
    along = [d.normalised_js_from_logits(*(ordinary + sign * h * direction), pi).sum() for sign in (1, -1)]
    slope = sum(np.sum(np.asarray(g, np.float64) * v) for g, v in zip(by_logit, direction, strict=True))
    np.testing.assert_allclose(slope, (along[0] - along[1]) / (2 * h), rtol=2e-4)
    spike = np.where(np.arange(50) == 7, 1e4, 0.0) * np.ones((3, 1))
    barred = np.where(np.arange(50) < 5, -np.inf, ordinary[0])
    for a, b in [(spike, -spike), (spike, spike), (ordinary[0], spike), (1e4 * ordinary[0], 1e3 * ordinary[1])]:
        found, by_logit = gradient(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
        assert np.isfinite(found) and found >= 0 and all(np.all(np.isfinite(g)) for g in by_logit)
    found, by_logit = gradient(jnp.asarray(barred, jnp.float32), jnp.asarray(barred + 1, jnp.float32))
    assert abs(found) < 1e-6 and all(np.all(np.isfinite(g)) for g in by_logit)


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


# What is refused.


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: d.kl(-p, p), "p has negative entries"),
        (lambda p: d.js(p, p * 1.00001, 0.5), "q is not normalised: it sums to 1.00001"),
        (lambda p: d.entropy(p * np.nan), "p is not normalised"),
        (lambda p: d.normalised_js(p, p, 1.5), r"real_prior must lie in \[0, 1\], not 1.5"),
        (lambda p: d.f_js(p, -0.1), "real_prior must lie"),
        (lambda p: d.normalised_js(p, p, np.asarray([0.5, np.nan])), "real_prior must lie"),
        (lambda p: d.frontier_integral(p, np.ones(1)), r"supports differ: p has \(4,\), q has \(1,\)"),
        (lambda p: d.normalised_js_from_logits(p, np.ones(3), 0.5), "supports differ"),
        (lambda p: d.kl_from_log(np.log(p), np.log(p / 2)), "q is not normalised: it sums to 0.5"),
        (lambda p: d.js_by_steps(np.ones((2, 2)) / 4, p, 0.5), "supports differ"),
        (lambda p: d.total_correlation(np.ones((2, 2))), "table is not normalised"),
        (lambda p: d.mutual_information(p), "has 2 axes, not 1"),
        (lambda p: d.token_js(p, p, 0.5, "teacher"), "prefixes must be 'data' or 'model', not 'teacher'"),
        (lambda p: d.kl(jnp.asarray(p * 1.001), jnp.asarray(p)), "p is not normalised"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(np.full(4, 0.25))
    assert "\n" not in str(error.value)


def test_float32_rounding_is_let_pass_and_so_is_what_is_traced():
    p = jnp.full(4, 0.25, jnp.float32)
    assert np.isfinite(d.kl(p * (1 + 5e-5), p))
    assert np.isfinite(jax.jit(d.js)(2 * p, p, 1.5 * p[0]))
