"""Information of joint tables against identities and numbers worked out by hand."""

import numpy as np
import pytest

from gentrain import divergences as d
from tests.divergences.reference import INNER, SEEDS, random_pair


@pytest.mark.parametrize("seed", SEEDS)
def test_js_is_what_a_draw_tells_of_its_label(seed):
    p, q = random_pair(seed)
    for pi in INNER:
        labelled = np.stack([pi * p, (1 - pi) * q])
        np.testing.assert_allclose(d.js(p, q, pi), d.mutual_information(labelled), rtol=1e-12)
        assert d.js(p, q, pi) <= d.entropy(np.asarray([pi, 1 - pi]))


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
        numbers = (q[0, 0] / q[0].sum(), d.kl(a, b), d.kl(b, a), d.js(a, b, 0.5), d.mutual_information(q))
        np.testing.assert_allclose(numbers, row, atol=6e-7)


def scheduled_sampling(p, q1, q2, eps):
    """D_SS[P||Q] of two symbols, q2[z] the conditional of the second after z."""
    p1, p2, given = p.sum(1), p.sum(0), p / p.sum(1, keepdims=True)
    sampled, fed = q1 @ d.kl(np.broadcast_to(p2, q2.shape), q2), p1 @ d.kl(given, q2)
    return d.kl(p1, q1) + (1 - eps) * sampled + eps * fed


@pytest.mark.parametrize("seed", [None, *SEEDS])
def test_what_scheduled_sampling_pays_for_the_truth_is_lautum_information(seed):
    p = np.asarray([[0.50, 0.10], [0.05, 0.35]]) if seed is None else random_pair(seed, 9)[0].reshape(3, 3)
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
    p, r = random_pair(seed, 9)[0].reshape(3, 3), random_pair(seed + 10, 3)[0]
    p1, p2, given = p.sum(1), p.sum(0), p / p.sum(1, keepdims=True)
    four, five = p1 @ d.kl(given, np.broadcast_to(r, given.shape)), d.kl(p2, r)
    np.testing.assert_allclose(four - five, d.mutual_information(p), rtol=1e-10)
    assert four - five > 1e-2


def test_total_correlation_is_what_a_product_of_marginals_loses():
    p = np.random.default_rng(1).dirichlet(np.full(81, 0.3)).reshape((3,) * 4)
    np.testing.assert_allclose(d.total_correlation(p), 0.778577, atol=5e-7)
    marginals = d.position_marginals(p)
    np.testing.assert_allclose(d.total_correlation(p), d.entropy(marginals).sum() - d.entropy(p.ravel()), rtol=1e-12)
    product = np.einsum("a,b,c,d->abcd", *marginals)
    np.testing.assert_allclose(d.position_marginals(product), marginals, atol=1e-15)
    assert abs(d.total_correlation(product)) < 1e-15
    assert d.mutual_information(p.sum((2, 3))) == pytest.approx(d.total_correlation(p.sum((2, 3))), rel=1e-13)
