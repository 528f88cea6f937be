"""A source by its name with its argument."""

from ml_collections import ConfigDict

from gentrain import plugins
from gentrain.datasets.store import Corpus


def read_source(full_name: str, data: ConfigDict) -> Corpus:
    """The raw corpus of one source, as 'text:PATH', read once into the cache; data: config.data."""
    name, _, argument = full_name.partition(":")
    return plugins.load("datasets.sources", name).read(argument, data)
