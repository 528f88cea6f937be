"""Options of captions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.datasets.sources.base_options import PairedTextOptions, can_be_read
from gentrain.options.schema import expect, option

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(PairedTextOptions):
    argument = "SOURCE"
    shared = (*PairedTextOptions.shared, "image_size")

    pairs: int = option(0, "pairs to train on; 0: as many as the source has training images", within="[0, 1e7]")

    def also(self, argument: str) -> tuple[str, ...]:
        return (argument,) if can_be_read(argument) else ()

    def check(self, run: "Run", where: str) -> None:
        super().check(run, where)
        for full_name in run.sources:
            name, _, argument = full_name.partition(":")
            expect(
                name != "captions" or can_be_read(argument),
                "data.name",
                full_name,
                "captions of one source of labelled pictures, as 'captions:digits'",
            )
