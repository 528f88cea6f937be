"""Options of source 'shakespeare'."""

from dataclasses import dataclass

from gentrain.datasets.sources.base_options import TextOptions
from gentrain.options.schema import option


@dataclass(frozen=True)
class Options(TextOptions):
    unit: str = option(
        "play",
        "a document: 'play', each of them with its speakers, or 'line', each line that is spoken",
        choices=("play", "line"),
    )
