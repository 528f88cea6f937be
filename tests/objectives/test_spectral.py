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


@pytest.fixture(scope="module")
def vectors():
    """Those of the parameters after many rounds."""
    settled = spectral.initial_vectors(PARAMS, jax.random.key(0))
    for _ in range(30):
        settled = ten_rounds(PARAMS, settled)
    return settled


ten_rounds = jax.jit(lambda params, vectors: spectral.refresh(params, vectors, 10))
normalise = jax.jit(spectral.normalise)


def test_no_matrix_stretches_a_vector_and_nothing_else_is_touched(vectors):
    found = normalise(PARAMS, vectors)
    for name in ("dense", "conv", "layers"):
        np.testing.assert_allclose(largest(found[name]["kernel"]), 1, rtol=1e-4, err_msg=name)
        share = np.asarray(found[name]["kernel"]) / np.asarray(PARAMS[name]["kernel"])
        assert np.ptp(share if share.ndim != 3 else share[0]) < 1e-5  # a matrix is scaled as a whole
    for name in ("small", "zero", "table"):
        jax.tree.map(np.testing.assert_array_equal, found[name], PARAMS[name])
    np.testing.assert_array_equal(found["dense"]["bias"], PARAMS["dense"]["bias"])


def test_the_stacked_layers_have_a_vector_each():
    vectors = spectral.initial_vectors(PARAMS, jax.random.key(0))
    assert {name: u.shape[0] for name, u in vectors.items()} == {
        "dense/kernel": 1, "conv/kernel": 1, "layers/kernel": 2, "small/kernel": 1, "zero/kernel": 1
    }  # fmt: skip
    for u in vectors.values():
        np.testing.assert_allclose(np.linalg.norm(u, axis=-1), 1, rtol=1e-6)


def test_rounds_converge_and_a_zero_matrix_keeps_its_vector():
    start = spectral.initial_vectors(PARAMS, jax.random.key(0))
    one_round = jax.jit(spectral.refresh)
    vectors, errors = start, []
    for rounds in range(1, 101):
        vectors = one_round(PARAMS, vectors)
        if rounds in (1, 10, 100):
            errors.append(abs(largest(normalise(PARAMS, vectors)["dense"]["kernel"])[0] - 1))
        if rounds == 10:
            for name, vector in ten_rounds(PARAMS, start).items():
                np.testing.assert_allclose(vector, vectors[name], atol=1e-5, err_msg=name)
    assert errors[0] > errors[1] > errors[2]
    np.testing.assert_array_equal(vectors["zero/kernel"], start["zero/kernel"])


def test_the_slope_is_that_of_the_quotient_and_finite_at_zero(vectors):
    kernel, weights = np.asarray(PARAMS["dense"]["kernel"], np.float64), np.asarray(random(7, 5, seed=9), np.float64)

    def total(params):
        kernels = spectral.normalise(params, vectors)
        return jnp.sum(kernels["dense"]["kernel"] * weights) + jnp.sum(kernels["zero"]["kernel"])

    slopes = jax.jit(jax.grad(total))(PARAMS)
    left, values, right = np.linalg.svd(kernel)
    outer, size = np.outer(left[:, 0], right[0]), values[0]
    exact = weights / size - (kernel * weights).sum() / size**2 * outer
    np.testing.assert_allclose(slopes["dense"]["kernel"], exact, atol=1e-4)
    assert np.asarray(slopes["zero"]["kernel"]) == pytest.approx(1.0)
