"""Worlds: laws of data that are known exactly, to train against and to measure with. NumPy float64; nothing is learned.

table: sequences (table, markov, hmm). oracle: SeqGAN's random LSTM. points: Gaussians and their mixtures.
fixed_points: what an objective's optimum is in such a world.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from gentrain.errors import ConfigError
from gentrain.worlds import oracle, points, table
from gentrain.worlds.fixed_points import (
    Optimum,
    TwoSymbols,
    critical_prior,
    full_gradient_minimum,
    gaussian_variance,
    js_minimiser,
    scheduled_sampling_conditionals,
    scheduled_sampling_divergence,
    scheduled_sampling_fixed_point,
)
from gentrain.worlds.oracle import Oracle
from gentrain.worlds.points import GaussianMixture
from gentrain.worlds.table import HiddenMarkov, Markov, SequenceWorld, Table, conditionals

__all__ = [
    "GaussianMixture",
    "HiddenMarkov",
    "Markov",
    "Optimum",
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
    "js_minimiser",
    "scheduled_sampling_conditionals",
    "scheduled_sampling_divergence",
    "scheduled_sampling_fixed_point",
]


# sample(rng, n): tokens (n, length) int32 or points (n, d) float64; log_prob(x): nats of each example (n,); entropy():
# nats, ConfigError where neither a closed form nor enumeration gives it.
World: TypeAlias = SequenceWorld | GaussianMixture


BUILDERS: dict[str, Callable[[Any], World]] = {
    "table": table.build_table,
    "markov": table.build_markov,
    "hmm": table.build_hmm,
    "oracle": oracle.build,
    "gaussian": points.build_gaussian,
    "bimodal": lambda config: points.bimodal(),
    "blobs": lambda config: points.blobs(),
    "ring": lambda config: points.ring(),
    "grid": lambda config: points.grid(),
}


def of(config: Any, who: str) -> World:
    """The world that a run's data are from. Raises ConfigError where they are from none; who: what needs to know it."""
    kind, _, name = config.data.name.partition(":")
    if kind != "world":
        raise ConfigError(f"{who} needs a world that is known, and data.name={config.data.name!r}")
    return build(name, config.data.world)


def build(name: str, config: Any) -> World:
    """The world of that name, drawn from the section config (config.data.world of the run).

    Raises ConfigError for an unknown name or impossible keys, DataError for an oracle's file that cannot be used.
    """
    if name not in BUILDERS:
        raise ConfigError(f"no world is named {name!r}; there are: {', '.join(BUILDERS)}")
    return BUILDERS[name](config)
