"""All the places where a law has mass: what an integral over a world runs over."""

import math
from typing import Any, NamedTuple

import numpy as np

from gentrain.worlds.points import GaussianMixture
from gentrain.worlds.table import SequenceWorld

POINTS = {1: 4001, 2: 301}  # of the grid along each axis, by dimension
REACH = 9.0  # standard deviations that the grid covers to each side
RESOLVED = 1e-6  # how far the masses on a grid may be from 1


class Support(NamedTuple):
    """All examples of a world, with their masses.

    examples: sequences (n, length) int32, or points (n, d) on a grid. log_p: the log mass of each, nats. log_volume:
    that of a cell of the grid, 0 for sequences. The masses add up to 1, and so do exp(log q + log_volume) of any
    density q that is as smooth.
    """

    examples: np.ndarray
    log_p: np.ndarray
    log_volume: float


def support(world: Any) -> Support | None:
    """Every sequence, or a grid of points that resolves the density; None where there are too many."""
    if isinstance(world, SequenceWorld):
        if not world.enumerable:
            return None
        shape = (world.vocab,) * world.length
        examples = np.indices(shape, np.int32).reshape(world.length, -1).T
        with np.errstate(divide="ignore"):
            return Support(examples, np.log(world.probabilities().reshape(-1)), 0.0)
    if not isinstance(world, GaussianMixture) or world.dimension not in POINTS:
        return None
    mean, covariance = world.moments()
    reach = REACH * np.sqrt(np.diag(covariance))
    axes = [np.linspace(m - r, m + r, POINTS[world.dimension]) for m, r in zip(mean, reach, strict=True)]
    examples = np.stack([axis.reshape(-1) for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    log_volume = sum(math.log(axis[1] - axis[0]) for axis in axes)
    log_p = world.log_prob(examples) + log_volume
    return Support(examples, log_p, log_volume) if abs(np.exp(log_p).sum() - 1) < RESOLVED else None
