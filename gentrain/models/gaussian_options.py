"""Options of the Gaussian."""

from dataclasses import dataclass

from gentrain.options.schema import option
from gentrain.options.sections import NetworkSection


@dataclass(frozen=True)
class Options(NetworkSection):
    makes = "points"
    judges = ()
    shared = ()

    mean: float = option(0.0, "where it starts, in every coordinate", within="(-inf, inf)")
    scale: float = option(1.0, "the standard deviation that it starts with", within="(0, inf)")
