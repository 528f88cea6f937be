"""Options of the mixture."""

from dataclasses import dataclass

from gentrain.options.schema import option
from gentrain.options.sections import NetworkSection


@dataclass(frozen=True)
class Options(NetworkSection):
    shared = ()
    has_kernels = False

    components: int = option(10, "laws of independent positions that are mixed", within="[1, inf)")
