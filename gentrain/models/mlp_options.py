"""Options of layers of ReLUs."""

from dataclasses import dataclass

from gentrain.options.schema import option
from gentrain.options.sections import NetworkSection


@dataclass(frozen=True)
class Options(NetworkSection):
    makes = "points"
    has_log_prob = False
    shared = ("width", "layers")

    latent: int = option(2, "numbers of noise that a point is made from", within="(0, inf)")


@dataclass(frozen=True)
class CriticOptions(NetworkSection):
    judges = ("points", "sequences")
    prefixes = False
    reads_mixtures = True
    shared = ("width", "layers", "dropout")
