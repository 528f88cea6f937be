"""Options of TFDS sets."""

from dataclasses import dataclass

from gentrain.options.schema import option
from gentrain.options.sections import DataSection


@dataclass(frozen=True)
class Options(DataSection):
    argument = "NAME"

    text_key: str = option("text", "the feature that holds the text; 'a/b': b within a, as captions/text")
