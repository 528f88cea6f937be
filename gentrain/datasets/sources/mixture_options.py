"""Options of a mixture of sources."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.datasets.sources.base_options import can_be_read
from gentrain.options.schema import expect, option
from gentrain.options.sections import DataSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(DataSection):
    shared = ("length",)

    sources: tuple = option(
        (),
        "(name, weight, repeats) or (name, weight, repeats, examples) of each source; weights are normalised;"
        " repeats 0: as often as needed, otherwise a run that would need more passes over that source is refused;"
        " examples: the number of its train examples that are used, the first ones, 0: all; its valid and test stay"
        " whole, and a tokenizer is learned on all of train",
    )

    def also(self, argument: str) -> tuple[str, ...]:
        names = [str(source[0]) for source in self.sources if isinstance(source, tuple | list) and source]
        return tuple(name for name in names if can_be_read(name))

    def check(self, run: "Run", where: str) -> None:
        super().check(run, where)
        key = f"{where}.sources"
        expect(bool(self.sources), key, self.sources, "(name, weight, repeats) triples, as (('surnames', 1.0, 0),)")
        names: set[str] = set()
        for source in self.sources:
            whole = isinstance(source, tuple | list) and len(source) in (3, 4)
            numbers = whole and all(isinstance(number, int | float) and math.isfinite(number) for number in source[1:])
            holds = numbers and source[1] > 0 and all(count >= 0 and count == int(count) for count in source[2:])
            expect(holds, key, source, "(name, finite weight > 0, whole repeats >= 0) and, if any, whole examples >= 0")
            expect(can_be_read(str(source[0])), key, source[0], "sources that are no mixtures or worlds themselves")
            expect(source[0] not in names, key, source[0], "each source once")
            names.add(source[0])
