"""How alike two samples of points are, in quality and in coverage: arrays in, numbers out; float64.

real (n, d), fake (m, d): features of real and of generated examples. A ball is about a point of one of the two, and
reaches as far as its k-th nearest neighbour among the others of its own kind. It is closed, where those of the package
prdc are open: the two differ where a point lies on the edge to rounding, as that of a copied example may.
"""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from gentrain.metrics import intervals, pairs
from gentrain.metrics.intervals import Interval

EDGE = 1e-12  # how far outside a ball rounding may put a point on its edge, by the longest squared length
CLOSEST = 0.01  # of held-out points, by which one tells how close to train is too close

Points = Float[np.ndarray, "n d"]


class Likeness(NamedTuple):
    """precision: the share of fake points in a ball of a real one; recall: of real points in a ball of a fake one, k =
    near (Kynkäänniemi et al., 2019). density: in how many balls of real points a fake one lies, by k; coverage: the
    share of those balls with any in, k = wide (Naeem et al., 2020)."""

    precision: Interval
    recall: Interval
    density: Interval
    coverage: Interval


def compare(real: Points, fake: Points, near: int = 3, wide: int = 5) -> Likeness:
    """All four in one pass over the pairs, with intervals about the means over samples so many of both.

    An interval has two parts, whose widths add up as squares: that of the points which are counted, and that of the
    others, by what the number loses without each, the reach of its neighbours' balls left as it is.

    For equal laws the means of density and coverage are 1 and 1 - prod_{i=1..k} (n - i) / (m + n - i), near 1 - 2^-k
    where n = m. Raises ValueError unless there are more than k points wherever a k-th nearest one is asked for.
    """
    n, m, centre = len(real), len(fake), real.mean(0)
    real, fake = real - centre, fake - centre
    edge = EDGE * max(np.square(points).sum(1).max() for points in (real, fake))
    of_real, of_fake = reaches(real, (near, wide)) + edge, reaches(fake, (near,))[:, 0] + edge
    by_row, by_column = pairs.over_pairs(holds, (real, of_real, np.arange(n)), (fake, of_fake, np.arange(m)))
    near_real, near_fake, wide_real = (Holds(*each) for each in zip(by_row, by_column, strict=True))

    def with_others(counted: Interval, many: int, lost: np.ndarray) -> Interval:
        """lost: by how much the sum over what is counted, so many, is smaller without each of the other points."""
        return intervals.combine(counted.value, counted, intervals.student(lost * (len(lost) / many)))

    def share(truths: np.ndarray, lost: np.ndarray) -> Interval:
        return intervals.clip(with_others(intervals.share(truths), len(truths), lost), 0, 1)

    return Likeness(
        precision=share(near_real.by_column > 0, near_real.alone_in_column()),
        recall=share(near_fake.by_row > 0, near_fake.alone_in_row()),
        density=with_others(intervals.student(wide_real.by_column / wide), m, wide_real.by_row / wide),
        coverage=share(wide_real.by_row > 0, wide_real.alone_in_row()),
    )


class Holds:
    """What is counted of a matrix of truths (n, m): of each row, and of each column, how many are true and the sum of
    their numbers; where one is true alone, that is its number."""

    def __init__(self, rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray]):
        (self.by_row, self.in_row), (self.by_column, self.in_column) = rows, columns

    def alone_in_row(self) -> np.ndarray:
        """In how many rows each column is the only one that is true, (m,)."""
        return np.bincount(self.in_row[self.by_row == 1], minlength=len(self.by_column))

    def alone_in_column(self) -> np.ndarray:
        """In how many columns each row is the only one that is true, (n,)."""
        return np.bincount(self.in_column[self.by_column == 1], minlength=len(self.by_row))


def holds(rows: Any, columns: Any, there: Array) -> tuple[Any, Any]:
    """Of a block: Holds of which fake points lie in balls of real ones, near, in which of fake ones real points lie,
    and the first again, wide."""
    (real, of_real, row), (fake, of_fake, column) = rows, columns
    squared = jnp.where(there[:, None], pairs.squares(real, fake), jnp.inf)
    truths = [squared <= of_real[:, :1], squared <= of_fake[None, :], squared <= of_real[:, 1:]]
    return [count_truths(each, column) for each in truths], [count_truths(each.T, row) for each in truths]


def count_truths(truths: Array, numbers: Array) -> tuple[Array, Array]:
    """How many of each row are true, and the sum of their numbers."""
    return truths.sum(1), jnp.where(truths, numbers[None, :], 0).sum(1)


def reaches(points: Points, ks: tuple[int, ...]) -> np.ndarray:
    """The squared distance of each point to its k-th nearest other one, (n, ks)."""
    if len(points) <= max(ks):
        raise ValueError(f"a {max(ks)}-th nearest neighbour needs more than {max(ks)} points, not {len(points)}")
    return pairs.over_pairs(smallest(ks), points, points)[0]


@cache
def smallest(ks: tuple[int, ...]) -> pairs.Block:
    """Of a block: the k-th nearest of each row's columns, the row itself being the 0th, (rows, ks)."""

    def of_block(points, others, there):
        squared = pairs.squares(points, others)
        level, found = jnp.full(len(points), -jnp.inf), jnp.full((len(points), len(ks)), jnp.inf)
        for _ in range(max(ks) + 1):  # from one distance to the next that is larger; several points may have it
            level = jnp.where(squared > level[:, None], squared, jnp.inf).min(1)
            many = (squared <= level[:, None]).sum(1, keepdims=True)
            found = jnp.where((many > jnp.asarray(ks)[None, :]) & jnp.isinf(found), level[:, None], found)
        return found, ()

    return of_block


def frechet(real: Points, fake: Points) -> float:
    """|mu_r - mu_f|^2 + Tr(S_r + S_f - 2 (S_r S_f)^(1/2)): the squared 2-Wasserstein distance of Gaussians with the
    samples' means and covariances; nan where a feature is not finite.

    Never 0 between samples: two of n points from one isotropic Gaussian of variance s^2 are s^2 d (d + 5) / (2 n) apart
    in the mean, to first order. Dowson & Landau, 1982.
    """
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        return float("nan")
    s_real, s_fake = (np.atleast_2d(np.cov(points, rowvar=False, dtype=np.float64)) for points in (real, fake))
    values, vectors = np.linalg.eigh(s_real)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    # S_r S_f has the eigenvalues of a matrix that is symmetric, so they are real and not negative but for rounding.
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s_fake @ root), 0)).sum()
    distance = np.square(np.mean(real, 0, np.float64) - np.mean(fake, 0, np.float64)).sum()
    return float(distance + np.trace(s_real) + np.trace(s_fake) - 2 * shared)


def nearest(points: Points, others: Points) -> np.ndarray:
    """How far each of the points (m, d) is from the nearest of the others (n, d): (m,), up to 1e-7 of its length."""
    return np.sqrt(np.maximum(pairs.over_pairs(closest, points, others)[0], 0))


def closest(points: Array, others: Array, there: Array) -> tuple[Array, tuple]:
    """Of a block: the squared distance of each row to the nearest column."""
    return pairs.squares(points, others).min(1), ()


class Closeness(NamedTuple):
    """ratio: the mean distance to train by that of held-out points: 1 for equal laws, less where train is copied.
    closer: the share of points closer to train than all but 1 % of held-out ones."""

    ratio: Interval
    closer: Interval


def closeness(fake: Float[np.ndarray, "m"], held_out: Float[np.ndarray, "n"]) -> Closeness:
    """From distances to the nearest point of train, of generated points and of held-out ones.

    For equal continuous laws the mean of `closer` is CLOSEST, or 1 / (n + 1) where that is more.
    """

    def ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return fake[ours].mean() / held_out[theirs].mean()

    def closer(theirs: np.ndarray) -> np.ndarray:
        # Which of the definitions of a quantile has that mean.
        return fake < np.quantile(held_out[theirs], CLOSEST, method="weibull")

    own = intervals.share(closer(np.ones(len(held_out), bool)))
    others = intervals.jackknife(lambda theirs: closer(theirs).mean(), len(held_out))
    return Closeness(
        intervals.jackknife_pair(ratio, len(fake), len(held_out)),
        intervals.clip(intervals.combine(own.value, own, others), 0, 1),
    )
