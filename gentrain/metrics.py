"""Sums."""
from typing import NamedTuple
import jax


class Sum(NamedTuple):
    """A mean kept as its two halves, so that it may be added over microbatches, devices, hosts and batches.

    total: e.g. nats summed over tokens; weight: e.g. tokens. The mean is total / weight.
    """

    total: jax.Array
    weight: jax.Array
