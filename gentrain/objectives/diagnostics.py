"""Signs that a game of two players goes wrong, as sums that cost next to nothing."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from gentrain.objectives.base import Alarm
from gentrain.sums import Metric, Sum

ROWS = 64  # of a batch, compared with one another
DIAGNOSTICS = {
    "generator/diversity": Metric("ratio", None, "mean distance between two samples, by that between two data"),
    "generator/nearest": Metric("ratio", None, "mean distance to the nearest other sample, by that of the data"),
    "generator/apart": Metric("ratio", None, "energy distance of samples and data: 0 the same law, 1 two points"),
}


def collapsed(means: Mapping[str, float]) -> bool:
    """Whether samples lie much closer to one another than the data do."""
    return means.get("generator/diversity", 1) < 0.25 or means.get("generator/nearest", 1) < 0.35


COLLAPSE = Alarm(
    "collapse",
    collapsed,
    "collapse: samples are much more alike than the data are (diversity {generator/diversity:.2f}, nearest"
    " {generator/nearest:.2f} of the data's); try a lower objective.real_prior",
)


def compare(real: Shaped[Array, "real ..."], fake: Shaped[Array, "fake ..."]) -> dict[str, Sum]:
    """How samples lie among themselves and to the data, without a critic: tokens (n, length) int, or (n, …) numbers.

    With d the share of tokens that differ, or the Euclidean distance, over pairs of the first 64 rows:
    diversity: E d(y, y') / E d(x, x'), samples y and data x; nearest: the same of the distance to the nearest other;
    apart: (2 E d(x, y) - E d(x, x') - E d(y, y')) / 2 E d(x, y), the energy distance by its largest value: 0 for the
    same law (with noise of either sign), 1 where both are points (Székely and Rizzo, 2013).
    """
    x, y = first_rows(real), first_rows(fake)
    among_real, among_fake, between = distances(x, x), distances(y, y), distances(x, y).mean()
    mean_real, mean_fake = mean_of_pairs(among_real), mean_of_pairs(among_fake)
    nothing = Sum(jnp.zeros(()), jnp.zeros(()))
    return {
        "diversity": Sum(mean_fake, mean_real),
        "nearest": Sum(nearest(among_fake), nearest(among_real)) if len(x) > 1 else nothing,
        "apart": Sum(2 * between - mean_real - mean_fake, 2 * between),
    }


def first_rows(values: Shaped[Array, "n ..."]) -> Shaped[Array, "rows numbers"]:
    """The rows that are compared, flat and without a gradient."""
    return jax.lax.stop_gradient(values[:ROWS]).reshape(min(len(values), ROWS), -1)


def mean_of_pairs(distances: Float[Array, "n n"]) -> Float[Array, ""]:
    """The mean distance of two different rows."""
    return distances.sum() / max(len(distances) * (len(distances) - 1), 1)


def nearest(distances: Float[Array, "n n"]) -> Float[Array, ""]:
    """The mean distance of a row to the nearest other row."""
    itself = jnp.eye(len(distances), dtype=bool)
    return jnp.min(distances + jnp.where(itself, jnp.inf, 0), axis=1).mean()


def distances(a: Shaped[Array, "n numbers"], b: Shaped[Array, "m numbers"]) -> Float[Array, "n m"]:
    """The share of tokens that differ, or the Euclidean distance of numbers."""
    if jnp.issubdtype(a.dtype, jnp.integer):
        return jnp.mean(a[:, None, :] != b[None, :, :], axis=-1, dtype=jnp.float32)
    return jnp.sqrt(jnp.sum(jnp.square(a[:, None, :] - b[None, :, :]), axis=-1))
