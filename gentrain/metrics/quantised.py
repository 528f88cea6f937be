"""Two samples of points in clusters, and the divergence frontier of the two histograms."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from gentrain import divergences
from gentrain.metrics import intervals
from gentrain.metrics.intervals import Interval

EXPLAINED = 0.9  # share of the variance that the principal components keep
POINTS_A_CLUSTER, MOST_CLUSTERS = 10, 500
PASSES = 20  # of k-means: clusters need to be sensible, not optimal
SCALE, CURVE_POINTS = 5.0, 25  # MAUVE's own


class Frontier(NamedTuple):
    """mauve: the area of `mauve`; frontier_integral: that of gentrain.divergences, nats."""

    mauve: Interval
    frontier_integral: Interval


def frontier(real: Float[np.ndarray, "n d"], fake: Float[np.ndarray, "m d"], clusterings: int = 5) -> Frontier:
    """The mean over clusterings of what the histograms of the two say.

    Its interval has two parts, whose widths add up as squares: that of another `fake` of the same law, by a jackknife
    in the clusters that there are, and that of other clusterings, by Student's t.
    """
    labels = list(zip(*cluster(real, fake, clusterings), strict=True))

    def estimate(measure: Callable[[np.ndarray, np.ndarray], float]) -> Interval:
        def by_clustering(chosen: np.ndarray) -> np.ndarray:
            return np.asarray([measure(*histograms(of_real, of_fake[chosen])) for of_real, of_fake in labels])

        over_samples = intervals.jackknife(lambda chosen: by_clustering(chosen).mean(), len(fake))
        over_clusterings = intervals.student(by_clustering(np.ones(len(fake), bool)))
        return intervals.combine(over_clusterings.value, over_samples, over_clusterings)

    return Frontier(estimate(mauve), estimate(lambda p, q: float(divergences.frontier_integral(p, q))))


def cluster(
    real: Float[np.ndarray, "n d"], fake: Float[np.ndarray, "m d"], clusterings: int = 5
) -> tuple[Int[np.ndarray, "clusterings n"], Int[np.ndarray, "clusterings m"]]:
    """The clusters of both, 0, 1, …, by k-means of the two together from `clusterings` different starts.

    Of directions, features by their length, in the principal components that explain 90 % of the variance; a cluster
    for every 10 points of the smaller sample, 2 at least and 500 at most. Pillutla et al., 2021.
    """
    points = np.concatenate([real, fake])
    points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    points = PCA(EXPLAINED, svd_solver="full").fit_transform(points)
    count = min(max(2, round(min(len(real), len(fake)) / POINTS_A_CLUSTER)), MOST_CLUSTERS)
    labels = [
        KMeans(count, init="random", n_init=1, max_iter=PASSES, random_state=seed).fit(points).labels_
        for seed in range(clusterings)
    ]
    return np.stack(labels)[:, : len(real)], np.stack(labels)[:, len(real) :]


def histograms(real: Int[np.ndarray, "n"], fake: Int[np.ndarray, "m"]) -> tuple[np.ndarray, np.ndarray]:
    """The shares of each cluster in both, (clusters,)."""
    clusters = 1 + max(real.max(), fake.max())
    return np.bincount(real, minlength=clusters) / len(real), np.bincount(fake, minlength=clusters) / len(fake)


def mauve(p: Float[np.ndarray, "clusters"], q: Float[np.ndarray, "clusters"]) -> float:
    """The area under MAUVE's curve (exp(-5 KL[Q||M]), exp(-5 KL[P||M])), M = w P + (1 - w) Q for 25 weights w: 1 for
    equal laws. Too high for few samples: of both laws a cluster is filled that has any mass. Pillutla et al., 2021."""
    curve_p, curve_q = divergences.mauve_curve(p, q, np.linspace(1e-6, 1 - 1e-6, CURVE_POINTS), SCALE)
    # w grows, so KL[P||M] falls and KL[Q||M] grows: from (1, 0) to (0, 1).
    return float(np.trapezoid(np.concatenate([[0], curve_p, [1]]), -np.concatenate([[1], curve_q, [0]])))
