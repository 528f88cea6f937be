"""Options of text files."""

from dataclasses import dataclass

from gentrain.datasets.sources.base_options import TextOptions
from gentrain.options.schema import option


@dataclass(frozen=True)
class Options(TextOptions):
    argument = "PATH"
    shared = (*TextOptions.shared, "max_damaged", "valid_fraction", "test_fraction")

    unit: str = option(
        "document",
        "a document: 'line', each line (LF, CRLF and CR end one), or 'document', the whole file",
        choices=("document", "line"),
    )
