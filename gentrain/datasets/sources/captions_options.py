"""Options of captions."""

from dataclasses import dataclass

from gentrain.datasets.sources.base_options import PairedTextOptions
from gentrain.options.schema import option


@dataclass(frozen=True)
class Options(PairedTextOptions):
    argument = "SOURCE"
    shared = (*PairedTextOptions.shared, "image_size")

    pairs: int = option(0, "pairs to train on; 0: as many as the source has training images")

    def also(self, argument: str) -> tuple[str, ...]:
        return (argument,)
