"""A text file or a folder of them."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets import held_out, store
from gentrain.datasets.store import SPLITS, Corpus, Writer
from gentrain.errors import DataError

FEW = 20  # documents; with fewer, a split by documents would be all or nothing


def read(argument: str, data: ConfigDict) -> Corpus:
    """A text file or a folder of them; splits are given (folders or .txt files train, valid, test) or held out."""
    root = Path(argument).expanduser()
    if not root.exists():
        raise DataError(f"data.name: there is no file or folder {root}")
    given: dict[str, list[Path]] = {}
    if root.is_dir():
        for split in SPLITS:
            found = (
                [root / f"{split}.txt"] if (root / f"{split}.txt").is_file() else sorted((root / split).rglob("*.txt"))
            )
            given |= {split: found} if found else {}
    if "train" not in given:
        given = {"train": [root] if root.is_file() else sorted(root.rglob("*.txt"))}
    if not given["train"]:
        raise DataError(f"data.name: {root} has no .txt file")
    unit, strict = data.text.unit, data.tokenizer != "bytes"
    fractions = held_out.missing_fractions(given, data)

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for split, files in given.items():
                documents = chain.from_iterable(read_documents(file, unit, strict) for file in files)
                given_split = ((split, document) for document in documents)
                for target, document in hold_out(documents, fractions) if split == "train" else given_split:
                    writer.add(target, document)
            writer.finish(kind="text")

    identity = {split: store.files_identity(files) for split, files in given.items()}
    return store.read(store.cached(["text", identity, unit, strict, fractions], make))


def read_documents(file: Path, unit: str, strict: bool) -> Iterator[bytes]:
    """The documents of a file that are not empty."""
    with open(file, "rb") as lines:
        start = 0
        for chunk in lines if unit == "line" else [lines.read()]:
            try:
                chunk.decode() if strict else None
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{file} is not UTF-8 at byte {start + error.start} (0x{chunk[error.start]:02x}): convert it, "
                    "or set data.tokenizer = 'bytes'"
                ) from error
            start += len(chunk)
            document = chunk.rstrip(b"\r\n") if unit == "line" else chunk
            if document:
                yield document


def hold_out(documents: Iterable[bytes], fractions: dict[str, float]) -> Iterator[tuple[str, bytes]]:
    """Documents with their splits: by a hash of the document's number, or, where they are few, the end of the text."""
    documents = iter(documents)
    head = list(islice(documents, FEW))
    if len(head) == FEW:
        for number, document in enumerate(chain(head, documents)):
            yield store.by_number(number, fractions), document
        return
    # Cut the concatenated text, documents staying apart, and characters whole.
    text, edges = b"".join(head), np.cumsum([0, *map(len, head)]).tolist()
    cuts, left = {}, len(text)
    for split in ("test", "valid"):
        start = left - int(len(text) * fractions.get(split, 0.0))
        while start < left and text[start] & 0xC0 == 0x80:
            start += 1
        cuts[split], left = (start, left), start
    for split, (start, stop) in {"train": (0, left), "valid": cuts["valid"], "test": cuts["test"]}.items():
        for begin, end in pairwise(edges):
            if max(begin, start) < min(end, stop):
                yield split, text[max(begin, start) : min(end, stop)]
