"""How alike two samples of points are, in quality and in coverage: arrays in, numbers out; float64.

real (n, d), fake (m, d): features of real and of generated examples. A ball is about a point of one of the two, and
reaches as far as its k-th nearest neighbour among the others of its own kind. It is closed, where those of the package
prdc are open: the two differ where a point lies exactly on the edge, as that of a copied example may.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

BLOCK = 1024  # rows of a distance matrix that are held at once

Points = Float[np.ndarray, "n d"]


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    density: float
    coverage: float


def precision_recall(real: Points, fake: Points, k: int = 3) -> PrecisionRecall:
    """The share of fake points in a ball of a real one, and the share of real points in a ball of a fake one.

    Kynkäänniemi et al., 2019. Raises ValueError unless there are more than k of both.
    """
    _, balls_of_real = count_within(real, fake, k)
    _, balls_of_fake = count_within(fake, real, k)
    return PrecisionRecall(float((balls_of_real > 0).mean()), float((balls_of_fake > 0).mean()))


def density_coverage(real: Points, fake: Points, k: int = 5) -> DensityCoverage:
    """density: in how many balls of real points a fake one lies, by k; coverage: the share of those balls with any in.

    For equal laws their means are 1 and 1 - prod_{i=1..k} (n - i) / (m + n - i), near 1 - 2^-k where n = m. Naeem et
    al., 2020. Raises ValueError unless there are more than k real points.
    """
    points, balls = count_within(real, fake, k)
    return DensityCoverage(float(balls.mean() / k), float((points > 0).mean()))


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


def count_within(centres: Points, points: Points, k: int) -> tuple[np.ndarray, np.ndarray]:
    """How many of the points (m, d) lie in the ball of each centre (n,), and how many balls each point lies in (m,)."""
    if len(centres) <= k:
        raise ValueError(f"a {k}-th nearest neighbour needs more than {k} points, not {len(centres)}")
    inside, balls = [], np.zeros(len(points), np.int64)
    for start in range(0, len(centres), BLOCK):
        block = centres[start : start + BLOCK]
        # Its distance to itself, 0, is the first, so the k-th of the others has index k.
        reach = np.partition(cdist(block, centres), k, axis=1)[:, k]
        within = cdist(block, points) <= reach[:, None]
        inside.append(within.sum(1))
        balls += within.sum(0)
    return np.concatenate(inside), balls


def nearest(points: Points, others: Points) -> np.ndarray:
    """How far each of the points (m, d) is from the nearest of the others (n, d): (m,), up to 1e-7 of its length."""
    squares, closest = np.square(others).sum(1), []
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        # |x - y|^2 = |x|^2 + |y|^2 - 2 x y, which one matmul gives for all pairs.
        closest.append(np.square(block).sum(1) + (squares - 2 * block @ others.T).min(1))
    return np.sqrt(np.maximum(np.concatenate(closest), 0))
