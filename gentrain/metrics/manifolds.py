"""How alike two samples of points are, in quality and in coverage: arrays in, numbers out; float64.

real (n, d), fake (m, d): features of real and of generated examples. A ball is about a point of one of the two, and
reaches as far as its k-th nearest neighbour among the others of its own kind. It is closed, where those of the package
prdc are open: the two differ where a point lies on the edge to rounding, as that of a copied example may.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gentrain.metrics import intervals
from gentrain.metrics.intervals import Interval

BLOCK = 1 << 22  # numbers of a matrix of pairs that are held at once
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
    near_real, near_fake, wide_real = Holds(n, m), Holds(n, m), Holds(n, m)
    for rows, squared in squares(real, fake):
        near_real.add(rows, squared <= of_real[rows, :1])
        near_fake.add(rows, squared <= of_fake)
        wide_real.add(rows, squared <= of_real[rows, 1:])

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
    """What is counted of a matrix of truths (n, m) that is added in blocks of rows."""

    def __init__(self, n: int, m: int):
        self.by_row, self.by_column = np.zeros(n, np.int64), np.zeros(m, np.int64)
        self.in_row, self.in_column = np.zeros(n, np.int64), np.zeros(m, np.int64)  # one that is true, where any is

    def add(self, rows: slice, block: np.ndarray) -> None:
        columns = np.count_nonzero(block, axis=0)
        self.by_row[rows], self.in_row[rows] = np.count_nonzero(block, axis=1), block.argmax(1)
        self.by_column += columns
        self.in_column[columns > 0] = rows.start + block.argmax(0)[columns > 0]

    def alone_in_row(self) -> np.ndarray:
        """In how many rows each column is the only one that is true, (m,)."""
        return np.bincount(self.in_row[self.by_row == 1], minlength=len(self.by_column))

    def alone_in_column(self) -> np.ndarray:
        """In how many columns each row is the only one that is true, (n,)."""
        return np.bincount(self.in_column[self.by_column == 1], minlength=len(self.by_row))


def reaches(points: Points, ks: tuple[int, ...]) -> np.ndarray:
    """The squared distance of each point to its k-th nearest other one, (n, ks)."""
    if len(points) <= max(ks):
        raise ValueError(f"a {max(ks)}-th nearest neighbour needs more than {max(ks)} points, not {len(points)}")
    # Its distance to itself, 0, is the first, so the k-th of the others has index k.
    return np.concatenate([np.partition(squared, ks, axis=1)[:, ks] for _, squared in squares(points, points)])


def squares(points: Points, others: Points) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of the matrix of squared distances, in blocks, up to 1e-15 of the points' own squared lengths."""
    lengths, rows = np.square(others).sum(1), max(1, BLOCK // len(others))
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        # |x - y|^2 = |x|^2 + |y|^2 - 2 x y, which one matmul gives for all pairs.
        squared = (-2 * block) @ others.T
        squared += np.square(block).sum(1)[:, None]
        squared += lengths
        yield slice(start, start + rows), squared


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
    closest = np.concatenate([squared.min(1) for _, squared in squares(points, others)])
    return np.sqrt(np.maximum(closest, 0))


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
