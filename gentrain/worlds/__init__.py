"""Worlds: laws of data that are known exactly, to train against and to measure with. NumPy float64; nothing is learned.

table: sequences (table, markov, hmm). oracle: SeqGAN's random LSTM. points: Gaussians and their mixtures.
fixed_points, minimisers: where objectives end in such a world. support: all the places where a law has mass.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from gentrain.errors import ConfigError
from gentrain.worlds import oracle, points, table
from gentrain.worlds.fixed_points import (
    TwoSymbols,
    full_gradient_minimum,
    scheduled_sampling_conditionals,
    scheduled_sampling_divergence,
    scheduled_sampling_fixed_point,
)
from gentrain.worlds.minimisers import Minimum, critical_prior, gaussian_variance, js_minima
from gentrain.worlds.oracle import Oracle
from gentrain.worlds.points import GaussianMixture
from gentrain.worlds.table import HiddenMarkov, Markov, SequenceWorld, Table, conditionals

__all__ = [
    "GaussianMixture",
    "HiddenMarkov",
    "Markov",
    "Minimum",
    "Oracle",
    "SequenceWorld",
    "Table",
    "TwoSymbols",
    "World",
    "build",
    "conditionals",
    "critical_prior",
    "full_gradient_minimum",
    "gaussian_variance",
    "js_minima",
    "scheduled_sampling_conditionals",
    "scheduled_sampling_divergence",
    "scheduled_sampling_fixed_point",
]


# sample(rng, n): tokens (n, length) int32 or points (n, d) float64. log_prob(x): nats of each example (n,). entropy():
# nats; it raises ConfigError where neither a closed form nor enumeration gives it.
World: TypeAlias = SequenceWorld | GaussianMixture


BUILDERS: dict[str, Callable[[Any], World]] = {  # by the section data.world of a config
    "table": table.build_table,
    "markov": table.build_markov,
    "hmm": table.build_hmm,
    "oracle": oracle.build,
    "gaussian": points.build_gaussian,
}
MIXTURES: dict[str, Callable[[], World]] = {  # without options
    "bimodal": points.bimodal,
    "blobs": points.blobs,
    "ring": points.ring,
    "grid": points.grid,
}


def of(config: Any, who: str) -> World:
    """The world that a run's data are from; who: what needs to know it. Raises ConfigError where they are from none."""
    kind, _, name = config.data.name.partition(":")
    if kind != "world":
        raise ConfigError(f"{who} needs a world that is known, and data.name={config.data.name!r}")
    return build(name, config.data.world)


def build(name: str, config: Any) -> World:
    """The world of that name, by its section of a config, config.data.world.

    Raises ConfigError for an unknown name or impossible keys, DataError for an oracle's file that cannot be used.
    """
    if name in MIXTURES:
        return MIXTURES[name]()
    if name not in BUILDERS:
        raise ConfigError(f"no world is named {name!r}; there are: {', '.join([*BUILDERS, *MIXTURES])}")
    return BUILDERS[name](config)
