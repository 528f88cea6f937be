"""Quick convolutions are lax's: values, slopes, and slopes of slopes, of random instances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gentrain.models import convolutions

LAYOUT = ("NHWC", "HWIO", "NHWC")


def normal(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32) / 2


def convolution(x, kernel, stride=1, groups=1):
    pads = [((side - 1) // 2,) * 2 for side in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=LAYOUT, feature_group_count=groups
    )


def transposed(x, kernel):
    return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=LAYOUT)


def repeat(x):
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def average(x):
    return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean(axis=(2, 4))


def orders(function):
    """(x, kernel) -> the value; slopes in both; and slopes in both of the squared slope in x."""

    def cost(x, kernel):
        return jnp.sin(function(x, kernel)).sum()

    def penalty(x, kernel):
        return sum(jnp.square(slope).sum() for slope in jax.grad(cost, argnums=(0, 1))(x, kernel))

    return jax.jit(lambda *at: (function(*at), jax.grad(cost, (0, 1))(*at), jax.grad(penalty, (0, 1))(*at)))


CASES = {
    "halve": (convolutions.halve, lambda x, k: convolution(x, k, stride=2), (2, 6, 4, 3), (4, 4, 3, 5)),
    "double": (convolutions.double, transposed, (2, 3, 4, 3), (4, 4, 3, 5)),
    "double, of many channels": (convolutions.double, transposed, (2, 2, 3, 2), (4, 4, 2, 17)),
    "a copy, then a convolution": (
        lambda x, k: convolutions.double(x, convolutions.widen(k)),
        lambda x, k: convolution(repeat(x), k),
        (2, 3, 4, 3),
        (3, 3, 3, 2),
    ),
    "a convolution, then a mean": (
        lambda x, k: convolutions.halve(x, convolutions.widen(k) / 4),
        lambda x, k: average(convolution(x, k)),
        (2, 4, 6, 3),
        (3, 3, 3, 2),
    ),
    "of one pixel": (convolutions.convolve, convolution, (2, 3, 4, 5), (1, 1, 5, 6)),
    "of few inputs": (convolutions.convolve, convolution, (2, 3, 4, 3), (3, 5, 3, 6)),
    "of few outputs": (convolutions.convolve, convolution, (2, 3, 4, 6), (3, 5, 6, 2)),
} | {
    f"{groups} groups": (
        convolutions.grouped,
        lambda x, k, groups=groups: convolution(x, k, groups=groups),
        (2, 4, 3, 2 * groups),
        (3, 3, 2, 2 * groups),
    )
    for groups in (1, 2, 5, 9, 10)
}


@pytest.mark.parametrize("case", CASES)
def test_values_slopes_and_slopes_of_slopes_are_those_of_lax(case):
    quick, plain, *shapes = CASES[case]
    given = [normal(*shape) for shape in shapes]
    leaves = zip(jax.tree.leaves(orders(quick)(*given)), jax.tree.leaves(orders(plain)(*given)), strict=True)
    for found, want in leaves:
        assert np.abs(want).max() > 0.1
        np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-3)
