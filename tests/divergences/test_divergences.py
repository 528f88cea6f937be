"""What holds of the whole package: its index, numpy and JAX, and the inputs it refuses."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import divergences as d
from tests.divergences.reference import random_pair, random_tables


def test_the_index_names_every_public_function():
    functions = {name for name in d.__all__ if inspect.isfunction(getattr(d, name))}
    listed = re.findall(r"^    (\w+) {2,}\S", d.__doc__, re.M)
    assert sorted(listed) == sorted(functions | {"Estimate"})


def test_numpy_and_jax_agree_and_jit_and_vmap_change_nothing():
    p, q = random_pair(0, shape=(3,))
    table, other = random_tables(0)
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
    outputs = compiled(arguments)
    for name, (function, values) in calls.items():
        expected = function(*values)
        for one, two in zip(jax.tree.leaves(outputs[name]), jax.tree.leaves(expected), strict=True):
            assert one.dtype == jnp.float32 and two.dtype == np.float64
            np.testing.assert_allclose(one, two, rtol=2e-4, atol=2e-6, err_msg=name)
    mapped = jax.vmap(d.normalised_js, (0, 0, 0))(*arguments["normalised_js"])
    np.testing.assert_allclose(mapped, d.normalised_js(*arguments["normalised_js"]), rtol=1e-6)
    assert isinstance(d.normalised_js(*arguments["normalised_js"]), jax.Array)


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


@pytest.mark.parametrize(
    ("bad", "message"),
    [((0.5, 0.4), "p is not normalised: it sums to 0.9"), ((1.5, -0.5), "p has negative entries, down to -0.5")],
)
def test_one_bad_law_in_a_batch_is_refused(bad, message):
    good = np.full((3, 2), 0.5)
    batch = np.concatenate([good, [bad]])
    for call in (d.entropy, lambda p: d.kl(p, good[:1]), lambda p: d.normalised_js(p, good[:1], 0.5)):
        with pytest.raises(ValueError, match=message):
            call(batch)


def test_float32_rounding_is_let_pass_and_so_is_what_is_traced():
    p = jnp.full(4, 0.25, jnp.float32)
    assert np.isfinite(d.kl(p * (1 + 5e-5), p))
    assert np.isfinite(jax.jit(d.js)(2 * p, p, 1.5 * p[0]))
