"""Points in the plane or on the line: Gaussians and mixtures of them."""

import math
from typing import Any

import numpy as np
from scipy.special import logsumexp

from gentrain.errors import ConfigError


class GaussianMixture:
    """P(x) = sum_k weights[k] N(x; means[k], covariances[k]).

    weights (K,), means (K, d), covariances (K, d, d). Raises ConfigError for weights that are no law, shapes that do
    not fit and covariances that are not symmetric and positive definite.
    """

    def __init__(self, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray):
        self.weights, self.means, self.covariances = (np.asarray(a, np.float64) for a in (weights, means, covariances))
        if self.means.ndim != 2 or self.covariances.shape != (*self.means.shape, self.means.shape[1]):
            raise ConfigError(
                f"means {self.means.shape} and covariances {self.covariances.shape} are not (K, d), (K, d, d)"
            )
        if not (np.isfinite(self.means).all() and np.isfinite(self.covariances).all()):
            raise ConfigError(
                f"means and covariances are finite; got {self.means.tolist()}, {self.covariances.tolist()}"
            )
        positive = self.weights.shape == self.means.shape[:1] and bool(np.all(self.weights > 0))
        if not positive or not abs(self.weights.sum() - 1) <= 1e-9:
            raise ConfigError(
                f"a mixture of {len(self.means)} has that many weights, positive, of sum 1: {self.weights}"
            )
        try:
            self.factors = np.linalg.cholesky(self.covariances)  # lower triangular, covariance = L L'
        except np.linalg.LinAlgError:
            self.factors = np.full_like(self.covariances, np.nan)
        if not np.allclose(self.covariances, self.factors @ self.factors.swapaxes(1, 2), rtol=1e-9):
            raise ConfigError(f"a covariance is symmetric and positive definite; got {self.covariances.tolist()}")

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """n independent points, (n, d)."""
        which = rng.choice(len(self.weights), size=n, p=self.weights)
        noise = rng.standard_normal((n, self.dimension))
        return self.means[which] + np.einsum("nij,nj->ni", self.factors[which], noise)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log density of points (n, d): (n,), nats."""
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise ConfigError(f"points of shape {x.shape} were given to a world that wants (n, {self.dimension})")
        parts = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            whitened = np.linalg.solve(factor, (x - mean).T)
            log_volume = np.log(np.diag(factor)).sum() + self.dimension / 2 * math.log(2 * math.pi)
            parts.append(math.log(weight) - log_volume - (whitened**2).sum(0) / 2)
        return logsumexp(parts, axis=0)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (d,) and covariance (d, d) of P: what maximum likelihood fits a single Gaussian to."""
        mean = self.weights @ self.means
        apart = self.means - mean
        return mean, np.einsum("k,kij->ij", self.weights, self.covariances + apart[:, :, None] * apart[:, None, :])

    def entropy(self) -> float:
        """1/2 log det(2 pi e covariance), nats, for one Gaussian. Raises ConfigError for a mixture."""
        if len(self.weights) > 1:
            raise ConfigError("a mixture's entropy has no closed form: estimate it by -mean(log_prob) of samples")
        return self.dimension / 2 * math.log(2 * math.pi * math.e) + float(np.log(np.diag(self.factors[0])).sum())


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> GaussianMixture:
    """One Gaussian as a mixture of one: mean (d,), covariance (d, d)."""
    return GaussianMixture(np.ones(1), np.asarray(mean)[None], np.asarray(covariance)[None])


def isotropic(weights: np.ndarray, means: np.ndarray, sd: float) -> GaussianMixture:
    """Components of the same standard deviation in every direction: weights (K,), means (K, d)."""
    means = np.asarray(means, np.float64)
    return GaussianMixture(weights, means, np.tile(sd**2 * np.eye(means.shape[1]), (len(means), 1, 1)))


def bimodal() -> GaussianMixture:
    """.6 N(-2, .7^2) + .4 N(2.5, .7^2) on the line: the best single Gaussian depends on the divergence."""
    return isotropic(np.array([0.6, 0.4]), np.array([[-2.0], [2.5]]), 0.7)


def blobs() -> GaussianMixture:
    """Three modes in the plane, of weights .5, .3, .2 and sd 0.5: smooth enough for a grid to resolve."""
    return isotropic(np.array([0.5, 0.3, 0.2]), np.array([[-1.5, 0.0], [1.5, 1.0], [1.0, -2.0]]), 0.5)


def ring() -> GaussianMixture:
    """Eight modes on the unit circle, sd 0.01. Srivastava et al. 2017, "VEEGAN"."""
    angles = 2 * np.pi * np.arange(8) / 8
    return isotropic(np.full(8, 1 / 8), np.stack([np.cos(angles), np.sin(angles)], axis=-1), 0.01)


def grid() -> GaussianMixture:
    """25 modes at coordinates -4, -2, .., 4, sd 0.05. Srivastava et al. 2017, "VEEGAN"."""
    axis = np.arange(-4.0, 5.0, 2.0)
    return isotropic(np.full(25, 1 / 25), np.stack(np.meshgrid(axis, axis), axis=-1).reshape(25, 2), 0.05)


def build_gaussian(config: Any) -> GaussianMixture:
    """N(0, data.world.covariance)."""
    covariance = np.asarray(config.covariance, np.float64)
    if covariance.ndim != 2:
        raise ConfigError(f"data.world.covariance is {config.covariance}; give d rows of d numbers")
    return gaussian(np.zeros(len(covariance)), covariance)
