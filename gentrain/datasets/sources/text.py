"""A text file or a folder of them."""

import codecs
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets import held_out, store
from gentrain.datasets.store import SPLITS, Corpus, Writer
from gentrain.errors import DamagedExample, DataError
from gentrain.files import open_regular

LARGEST = {"line": 2**28, "document": 2**33}  # bytes, which are held in memory
FEW = 20  # documents; with fewer, a split by documents would be all or nothing


def read(argument: str, data: ConfigDict) -> Corpus:
    """The documents of a text file or of a folder's .txt files, by data.text.unit: whole files or lines.

    Text is read with universal newlines (CRLF and CR are line ends, LF), and without a byte-order mark at a file's
    start. Splits are given (folders or .txt files train, valid, test) or held out. What is no UTF-8 is left out as far
    as data.max_damaged allows.
    """
    root = Path(argument).expanduser()
    files = files_by_split(root)
    unit, strict = data.text.unit, data.tokenizer != "bytes"
    fractions = held_out.missing_fractions(files, data)

    def make(folder: Path) -> None:
        with Writer(folder, max_damaged=data.max_damaged) as writer:
            for split, paths in files.items():
                documents = chain.from_iterable(
                    read_documents(path, root, unit, strict, writer.may_be_damaged) for path in paths
                )
                if split == "train":
                    for target, document in hold_out(documents, fractions):
                        writer.add(target, document)
                else:
                    for document in documents:
                        writer.add(split, document)
            writer.finish(kind="text")

    identity = {split: store.files_identity(paths) for split, paths in files.items()}
    return store.read(store.cached(["text", identity, unit, strict, fractions, data.max_damaged], make))


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


def read_documents(
    file: Path, root: Path, unit: str, strict: bool, may_be_damaged: Callable[[], AbstractContextManager]
) -> Iterator[bytes]:
    """The documents of a file that are not empty.

    Raises DataError for what is no regular file, leads out of the folder root or has more than LARGEST bytes, and, if
    strict, DamagedExample for what is no UTF-8, within may_be_damaged().
    """
    start = 0
    for chunk in read_chunks(file, root, unit):
        begin, start = start, start + len(chunk)
        with may_be_damaged():
            if strict:
                check_utf8(chunk, file, begin)
            text = chunk.removeprefix(codecs.BOM_UTF8) if begin == 0 else chunk
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            yield from filter(None, text.split(b"\n") if unit == "line" else [text])


def read_chunks(file: Path, root: Path, unit: str) -> Iterator[bytes]:
    """A file line by line, or all of it. Raises DataError: see read_documents."""
    most = LARGEST[unit]
    too_large = f"{file} has a {unit} of more than {most:,} bytes: cut it"
    try:
        with open_regular(file, root) as content:
            if unit == "document":
                if os.fstat(content.fileno()).st_size > most:  # a file may have holes that no disk would hold
                    raise DataError(too_large)
                yield content.read()
            while line := content.readline(most + 1):
                if len(line) > most:
                    raise DataError(too_large)
                yield line
    except OSError as error:
        raise DataError(f"data.name: {error}") from error


def check_utf8(chunk: bytes, file: Path, start: int) -> None:
    """Raises DamagedExample for bytes of a file, from byte `start` on, that are no UTF-8."""
    try:
        chunk.decode()
    except UnicodeDecodeError as error:
        raise DamagedExample(
            f"{file} is not UTF-8 at byte {start + error.start} (0x{chunk[error.start]:02x}): convert it, "
            "set data.tokenizer = 'bytes', or let data.max_damaged leave some out"
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
