"""What the options of several sources have in common: which options of section data they read."""

from dataclasses import dataclass
from typing import ClassVar

from gentrain.options.sections import DataSection


def can_be_read(full_name: str) -> bool:
    """Whether another source may read this one: mixtures and worlds are no corpora."""
    return full_name.partition(":")[0] not in ("", "mixture", "world")


@dataclass(frozen=True)
class TextOptions(DataSection):
    """Of text without a context, whose splits are given."""

    shared: ClassVar[tuple[str, ...]] = ("length", "layout", "tokenizer", "vocab_size")

    def kind(self, argument: str) -> str:
        return "text"


@dataclass(frozen=True)
class PairedTextOptions(TextOptions):
    """Of texts that are about something."""

    shared: ClassVar[tuple[str, ...]] = ("length", "layout", "tokenizer", "vocab_size", "conditional")


@dataclass(frozen=True)
class ImageOptions(DataSection):
    """Of labelled images of one size, whose splits are given."""

    shared: ClassVar[tuple[str, ...]] = ("conditional", "levels")

    def kind(self, argument: str) -> str:
        return "images"
