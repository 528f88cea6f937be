"""Options of the table: none; its size follows from the data."""

from dataclasses import dataclass

from gentrain.options.sections import NetworkSection


@dataclass(frozen=True)
class Options(NetworkSection):
    shared = ()
    has_kernels = False
