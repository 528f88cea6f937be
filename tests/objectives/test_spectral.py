"""Spectral normalisation against singular values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain.objectives.adversarial import spectral


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def largest(kernel):
    """The largest singular value of each matrix of a kernel."""
    stack = kernel if kernel.ndim == 3 else kernel.reshape(1, -1, kernel.shape[-1])
    return np.linalg.svd(np.asarray(stack), compute_uv=False)[:, 0]


PARAMS = {
    "dense": {"kernel": 3 * random(7, 5), "bias": random(5)},
    "conv": {"kernel": random(3, 3, 4, 6, seed=1)},
    "layers": {"kernel": jnp.stack([random(4, 6, seed=2), 5 * random(4, 6, seed=3)])},
    "small": {"kernel": 0.01 * random(4, 4)},
    "zero": {"kernel": jnp.zeros((4, 1))},
    "table": random(9, 9),
}


def settled(params, rounds=300):
    return spectral.refreshed(params, spectral.start(params, jax.random.key(0)), rounds)


def test_no_matrix_stretches_a_vector_and_nothing_else_is_touched():
    found = spectral.normalised(PARAMS, settled(PARAMS))
    for name in ("dense", "conv", "layers"):
        np.testing.assert_allclose(largest(found[name]["kernel"]), 1, rtol=1e-4, err_msg=name)
        share = np.asarray(found[name]["kernel"]) / np.asarray(PARAMS[name]["kernel"])
        assert np.ptp(share if share.ndim != 3 else share[0]) < 1e-5  # a matrix is scaled as a whole
    for name in ("small", "zero", "table"):
        jax.tree.map(np.testing.assert_array_equal, found[name], PARAMS[name])
    np.testing.assert_array_equal(found["dense"]["bias"], PARAMS["dense"]["bias"])


def test_the_stacked_layers_have_a_vector_each():
    vectors = spectral.start(PARAMS, jax.random.key(0))
    assert {name: u.shape[0] for name, u in vectors.items()} == {
        "dense/kernel": 1, "conv/kernel": 1, "layers/kernel": 2, "small/kernel": 1, "zero/kernel": 1
    }  # fmt: skip
    for u in vectors.values():
        np.testing.assert_allclose(np.linalg.norm(u, axis=-1), 1, rtol=1e-6)


def test_rounds_converge_and_a_zero_matrix_keeps_its_vector():
    start = spectral.start(PARAMS, jax.random.key(0))
    errors = []
    for rounds in (1, 10, 100):
        found = spectral.normalised(PARAMS, spectral.refreshed(PARAMS, start, rounds))
        errors.append(abs(largest(found["dense"]["kernel"])[0] - 1))
    assert errors[0] > errors[1] > errors[2]
    after = spectral.refreshed(PARAMS, start, 3)
    np.testing.assert_array_equal(after["zero/kernel"], start["zero/kernel"])


def test_the_slope_is_that_of_the_quotient_and_finite_at_zero():
    vectors, kernel = settled(PARAMS), np.asarray(PARAMS["dense"]["kernel"], np.float64)
    weights = np.asarray(random(7, 5, seed=9), np.float64)
    total = lambda params: jnp.sum(spectral.normalised(params, vectors)["dense"]["kernel"] * weights)
    found = np.asarray(jax.grad(total)(PARAMS)["dense"]["kernel"])
    left, values, right = np.linalg.svd(kernel)
    outer, size = np.outer(left[:, 0], right[0]), values[0]
    exact = weights / size - (kernel * weights).sum() / size**2 * outer
    np.testing.assert_allclose(found, exact, atol=1e-4)
    of_zero = lambda params: jnp.sum(spectral.normalised(params, vectors)["zero"]["kernel"])
    assert np.asarray(jax.grad(of_zero)(PARAMS)["zero"]["kernel"]) == pytest.approx(1.0)
