"""The chain rule and the token averages against divergences of whole sequences."""

import numpy as np
import pytest

from gentrain import divergences as d
from tests.divergences.reference import SEEDS, naive_js, naive_kl, random_tables


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pi", [0, 0.1, 0.5, 0.9, 1])
def test_chain_rule_of_js_needs_the_posterior_of_the_prefix(seed, pi):
    p, q = random_tables(seed)
    whole = d.js(p.ravel(), q.ravel(), pi)
    np.testing.assert_allclose(d.js_by_steps(p, q, pi).sum(), whole, rtol=0, atol=1e-12)
    np.testing.assert_allclose(d.js_by_steps(p, q, pi)[0], d.js(p.sum((1, 2)), q.sum((1, 2)), pi), atol=1e-15)
    if 0 < pi < 1:
        for prefixes in ("data", "model"):
            off = abs(d.token_js(p, q, pi, prefixes).sum() - whole)
            assert off > 1e-2 * whole and (pi != 0.5 or off > 1e-2)


def test_chain_rule_where_prefixes_are_missing():
    p, q = random_tables(0)
    p[0], q[2, 1] = 0, 0
    p, q = p / p.sum(), q / q.sum()
    with np.errstate(all="raise"):
        for pi in (0.1, 0.5):
            np.testing.assert_allclose(d.js_by_steps(p, q, pi).sum(), d.js(p.ravel(), q.ravel(), pi), atol=1e-12)
        assert d.token_kl(p, q).sum() == np.inf


@pytest.mark.parametrize("seed", SEEDS)
def test_token_averages_are_their_definitions(seed):
    p, q = random_tables(seed)
    given = lambda joint: joint / joint.sum(-1, keepdims=True)
    for prefixes, table in (("data", p), ("model", q)):
        last = np.sum(table.sum(-1) * naive_js(given(p), given(q), 0.3))
        np.testing.assert_allclose(d.token_js(p, q, 0.3, prefixes)[-1], last, rtol=1e-11)
        last = np.sum(table.sum(-1) * naive_kl(given(p), given(q)))
        np.testing.assert_allclose(d.token_kl(p, q, prefixes)[-1], last, rtol=1e-11)
    np.testing.assert_allclose(d.token_kl(p, q).sum(), d.kl(p.ravel(), q.ravel()), rtol=1e-12)
    np.testing.assert_allclose(d.token_kl(q, p).sum(), d.kl(q.ravel(), p.ravel()), rtol=1e-12)
    gap = d.token_kl(p, q, "model").sum() - d.token_kl(p, q).sum()
    assert abs(gap) > 1e-2  # exposure bias; the first step has no part in it
    np.testing.assert_allclose(d.token_kl(p, q, "model")[0], d.token_kl(p, q)[0], rtol=1e-15)
