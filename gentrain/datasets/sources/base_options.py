"""What the options of several sources have in common: which options of section data they read."""

from dataclasses import dataclass

from gentrain.options.sections import DataSection


@dataclass(frozen=True)
class TextOptions(DataSection):
    """Of text without a context, whose splits are given."""

    shared = ("length", "layout", "tokenizer", "vocab_size")

    def kind(self, argument: str) -> str:
        return "text"


@dataclass(frozen=True)
class PairedTextOptions(TextOptions):
    """Of texts that are about something."""

    shared = ("length", "layout", "tokenizer", "vocab_size", "conditional")


@dataclass(frozen=True)
class ImageOptions(DataSection):
    """Of labelled images of one size, whose splits are given."""

    shared = ("conditional", "levels")

    def kind(self, argument: str) -> str:
        return "images"
