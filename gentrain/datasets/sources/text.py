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
    """The documents of a text file or of a folder's .txt files, by data.text.unit: whole files or lines.

    Splits are given (folders or .txt files train, valid, test) or held out.
    """
    files = files_by_split(Path(argument).expanduser())
    unit, strict = data.text.unit, data.tokenizer != "bytes"
    fractions = held_out.missing_fractions(files, data)

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for split, paths in files.items():
                documents = chain.from_iterable(read_documents(path, unit, strict) for path in paths)
                if split == "train":
                    for target, document in hold_out(documents, fractions):
                        writer.add(target, document)
                else:
                    for document in documents:
                        writer.add(split, document)
            writer.finish(kind="text")

    identity = {split: store.files_identity(paths) for split, paths in files.items()}
    return store.read(store.cached(["text", identity, unit, strict, fractions], make))


def files_by_split(root: Path) -> dict[str, list[Path]]:
    """The .txt files of each split that is given; all of them are train where none is. Raises DataError without any."""
    if not root.exists():
        raise DataError(f"data.name: there is no file or folder {root}")
    files: dict[str, list[Path]] = {}
    for split in SPLITS if root.is_dir() else ():
        single = root / f"{split}.txt"
        paths = [single] if single.is_file() else sorted((root / split).rglob("*.txt"))
        if paths:
            files[split] = paths
    if "train" not in files:
        files = {"train": [root] if root.is_file() else sorted(root.rglob("*.txt"))}
    if not files["train"]:
        raise DataError(f"data.name: {root} has no .txt file")
    return files


def read_documents(file: Path, unit: str, strict: bool) -> Iterator[bytes]:
    """The documents of a file that are not empty. strict: raises DataError where the file is no UTF-8."""
    with open(file, "rb") as lines:
        start = 0
        for chunk in lines if unit == "line" else [lines.read()]:
            if strict:
                check_utf8(chunk, file, start)
            start += len(chunk)
            document = chunk.rstrip(b"\r\n") if unit == "line" else chunk
            if document:
                yield document


def check_utf8(chunk: bytes, file: Path, start: int) -> None:
    """Raises DataError for bytes of a file, from byte `start` on, that are no UTF-8."""
    try:
        chunk.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8 at byte {start + error.start} (0x{chunk[error.start]:02x}): convert it, "
            "or set data.tokenizer = 'bytes'"
        ) from error


def hold_out(documents: Iterable[bytes], fractions: dict[str, float]) -> Iterator[tuple[str, bytes]]:
    """Documents with their splits: by a hash of the document's number, or, where they are few, the end of the text."""
    documents = iter(documents)
    head = list(islice(documents, FEW))
    if len(head) == FEW:
        for number, document in enumerate(chain(head, documents)):
            yield held_out.split_by_number(number, fractions), document
    else:
        yield from hold_out_end(head, fractions)


def hold_out_end(documents: list[bytes], fractions: dict[str, float]) -> Iterator[tuple[str, bytes]]:
    """Cuts the text of all documents together into train, valid and test; documents stay apart, characters whole."""
    text = b"".join(documents)
    edges = np.cumsum([0, *map(len, documents)]).tolist()
    bounds, stop = {}, len(text)
    for split in ("test", "valid"):
        start = stop - int(len(text) * fractions.get(split, 0.0))
        while start < stop and text[start] & 0xC0 == 0x80:
            start += 1
        bounds[split] = (start, stop)
        stop = start
    bounds["train"] = (0, stop)
    for split in SPLITS:
        start, stop = bounds[split]
        for begin, end in pairwise(edges):
            if max(begin, start) < min(end, stop):
                yield split, text[max(begin, start) : min(end, stop)]
