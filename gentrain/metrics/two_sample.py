"""How far the laws of two samples of points are apart, with intervals about both: by a kernel, and along directions.

real (n, d), fake (m, d): features of real and of generated examples, float64. What is held at once does not grow with
the number of pairs.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from gentrain.metrics import intervals, pairs
from gentrain.metrics.intervals import Interval

BLOCK = 1 << 22  # numbers of a matrix that are held at once
DIRECTIONS, FRAME = 1000, 100  # directions in all, about, and those at right angles to one another at most

Points = Float[np.ndarray, "n d"]


def kernel_distance(real: Points, fake: Points) -> Interval:
    """MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) with k(x, y) = (x y / d + 1)^3, without bias: its mean is 0 for
    equal laws, and it may be negative. KID (Bińkowski et al., 2018) where features are those of Inception.

    It is of all pairs, and so is its interval: the jackknife that leaves out one point at a time (Arvesen, 1969), too
    wide rather than too narrow where laws are equal. Raises ValueError for fewer than three points.
    """
    n, m = len(real), len(fake)
    if min(n, m) < 3:
        raise ValueError(f"a kernel distance that leaves points out needs three of both, not {n} and {m}")
    real_real, fake_fake = (kernel_sums(points, points)[0] - own_kernel(points) for points in (real, fake))
    real_fake, fake_real = kernel_sums(real, fake)
    in_real, in_fake, across = real_real.sum(), fake_fake.sum(), real_fake.sum()
    of_real, of_fake = in_real / (n * (n - 1)), in_fake / (m * (m - 1))
    value = of_real + of_fake - 2 * across / (n * m)
    without_real = (in_real - 2 * real_real) / ((n - 1) * (n - 2)) - 2 * (across - real_fake) / ((n - 1) * m)
    without_fake = (in_fake - 2 * fake_fake) / ((m - 1) * (m - 2)) - 2 * (across - fake_real) / (n * (m - 1))
    parts = without_real + of_fake, without_fake + of_real
    return intervals.combine(value, *(intervals.left_out(value, part) for part in parts))


def kernel_sums(points: Points, others: Points) -> tuple[np.ndarray, np.ndarray]:
    """sum_j k(x_i, y_j) of each point i, and sum_i k(x_i, y_j) of each other one j."""
    return pairs.over_pairs(kernels, points, others)


def kernels(points: Array, others: Array, there: Array) -> tuple[Array, Array]:
    """The same of a block."""
    values = jnp.where(there[:, None], kernel(points @ others.T, others.shape[1]), 0.0)
    return values.sum(1), values.sum(0)


def own_kernel(points: Points) -> np.ndarray:
    """k(x_i, x_i) of each point."""
    return kernel(np.square(points).sum(1), points.shape[1])


def kernel(products: Any, d: int) -> Any:
    """(x y / d + 1)^3 of products x y."""
    base = products / d + 1
    return base * base * base


def sliced_wasserstein(real: Points, fake: Points, seed: int) -> Interval:
    """The mean over directions u, uniform on the sphere, of W_2^2 between u x and u y: |shift|^2 / d for laws that are
    shifted. Exact along each of about 1,000 directions, which the seed draws. Bonneel et al., 2015.

    Never 0 between samples. The interval is about the mean over samples so many and over all directions. Of a sample it
    is sqrt(Var phi / n) wide, phi_i being point i's Kantorovich potential, the derivative by its weight (del Barrio &
    Loubes, 2019), in the mean over directions.
    """
    n, m = len(real), len(fake)
    frames = random_frames(seed, real.shape[1])
    directions = frames.reshape(-1, frames.shape[-1])
    # Quantiles of both at the steps of either, in units of 1 / (n m), which are whole numbers.
    steps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    weights, at_real, at_fake = np.diff(steps) / (n * m), steps[:-1] // m, steps[:-1] // n
    rows, along, of_real, of_fake = max(1, BLOCK // (n + m)), [], np.zeros(n), np.zeros(m)
    for start in range(0, len(directions), rows):
        block = directions[start : start + rows]
        x, y = block @ real.T, block @ fake.T
        order_x, order_y = x.argsort(1), y.argsort(1)
        x, y = np.take_along_axis(x, order_x, 1), np.take_along_axis(y, order_y, 1)
        along.append(np.square(x[:, at_real] - y[:, at_fake]) @ weights)
        of_real += np.bincount(order_x.ravel(), potentials(x, y).ravel(), n) / len(directions)
        of_fake += np.bincount(order_y.ravel(), potentials(y, x).ravel(), m) / len(directions)
    by_frame = np.concatenate(along).reshape(frames.shape[:2]).mean(1)
    return intervals.combine(by_frame.mean(), *map(intervals.student, (of_real, of_fake, by_frame)))


def random_frames(seed: int, d: int) -> Float[np.ndarray, "frames width d"]:
    """Directions, uniform on the sphere; those of a frame are at right angles, so that they say less of the same."""
    width = min(d, FRAME)
    gaussian = np.random.default_rng(seed).normal(size=(max(2, DIRECTIONS // width), d, width))
    return np.linalg.qr(gaussian).Q.swapaxes(1, 2)


def potentials(x: Float[np.ndarray, "p n"], y: Float[np.ndarray, "p m"]) -> Float[np.ndarray, "p n"]:
    """Of the points x to the points y, both sorted, in each row: phi' = 2 (x - T x), T being the map of quantiles.

    Between two neighbours T x is the middle of the quantiles of y right below and right above what the two part.
    """
    n, m = x.shape[1], y.shape[1]
    parted = np.arange(1, n) * m
    opposite = y[:, (parted - 1) // n] + y[:, parted // n]
    steps = np.diff(x) * (x[:, 1:] + x[:, :-1] - opposite)
    return np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))
