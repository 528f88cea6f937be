"""Is a game of two players going wrong? What tells it, as sums that cost next to nothing."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

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


def compare(real: Array, fake: Array) -> dict[str, Sum]:
    """How samples lie among themselves and to the data, without a critic: tokens (n, length), or (n, …) numbers.

    With d the share of tokens that differ, or the Euclidean distance, over pairs of the first 64 rows:
    diversity: E d(y, y') / E d(x, x'), samples y and data x; nearest: the same of the distance to the nearest other;
    apart: (2 E d(x, y) - E d(x, x') - E d(y, y')) / 2 E d(x, y), the energy distance by its largest value: 0 for the
    same law (with noise of either sign), 1 where both are points (Székely and Rizzo, 2013).
    """
    x, y = (jax.lax.stop_gradient(values[:ROWS]).reshape(min(len(values), ROWS), -1) for values in (real, fake))
    xx, yy, xy = distances(x, x), distances(y, y), distances(x, y).mean()
    within_x, within_y = (pairs.sum() / max(len(pairs) * (len(pairs) - 1), 1) for pairs in (xx, yy))
    return {
        "diversity": Sum(within_y, within_x),
        "nearest": Sum(nearest(yy), nearest(xx)) if len(x) > 1 else Sum(jnp.zeros(()), jnp.zeros(())),
        "apart": Sum(2 * xy - within_x - within_y, 2 * xy),
    }


def nearest(distances: Array) -> Array:
    """The mean distance to the nearest other row: (n, n) -> ()."""
    itself = jnp.eye(len(distances), dtype=bool)
    return jnp.min(distances + jnp.where(itself, jnp.inf, 0), axis=1).mean()


def distances(a: Array, b: Array) -> Array:
    """(n, m): the share of tokens that differ, or Euclidean."""
    if jnp.issubdtype(a.dtype, jnp.integer):
        return jnp.mean(a[:, None, :] != b[None, :, :], axis=-1, dtype=jnp.float32)
    return jnp.sqrt(jnp.sum(jnp.square(a[:, None, :] - b[None, :, :]), axis=-1))
