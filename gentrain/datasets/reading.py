"""A source by its name with its argument, as 'text:PATH'."""

from ml_collections import ConfigDict

from gentrain import plugins
from gentrain.datasets.store import Corpus
from gentrain.errors import ConfigError


def read_source(full_name: str, data: ConfigDict) -> Corpus:
    """The raw corpus of one source, read once into the cache; data: config.data.

    Raises ConfigError for a source that does not exist, or that is no corpus: a mixture or a world.
    """
    name, _, argument = full_name.partition(":")
    source = plugins.load("datasets.sources", name)
    if not hasattr(source, "read"):
        raise ConfigError(f"{full_name!r} is no source of its own that another can read: expected a set of examples")
    return source.read(argument, data)
