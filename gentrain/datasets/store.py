"""A corpus on disk: memory-mapped tokens, document offsets and contexts, cached under what determines them.

One folder a corpus: <split>.tokens, <split>.offsets (int64), <split>.labels (int32), contexts (uint8) and meta.json.
"""

import array
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gentrain.errors import FULL, DataError
from gentrain.files import sync

SPLITS = ("train", "valid", "test")
FORMAT = 1  # part of every key: raise it when the files below, or how a source is read, change


class Arrays(NamedTuple):
    """A split: document i is tokens[offsets[i]:offsets[i+1]].

    labels: one a document, its class or the number of its context, which others may share; empty where there are none.
    characters: what a reader counts in place of tokens (see build.Split). contexts: what the labels number, (contexts,
    *context_shape) uint8; None: labels are classes.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    characters: int
    contexts: np.ndarray | None = None


class Corpus(NamedTuple):
    """All splits of one source.

    digest: names what it was made from. meta: what its maker noted: kind ('text' or 'image'); for images shape, top
    (the largest value) and classes; where there are contexts context_shape and, where these are symbols 1, 2, … (0:
    padding), the alphabet they number.
    """

    digest: str
    meta: dict[str, Any]
    splits: dict[str, Arrays]


def cache() -> Path:
    """The folder of everything that can be made anew: GENTRAIN_CACHE, or ~/.cache/gentrain."""
    return Path(os.environ.get("GENTRAIN_CACHE") or Path.home() / ".cache" / "gentrain").expanduser().absolute()


def cached(key: Any, make: Callable[[Path], None]) -> Path:
    """The folder that make(folder) filled for this key (JSON), made only if it is not there yet.

    It appears whole or not at all, so processes may race for it: the first one wins and all read the same files.
    Raises DataError where the cache cannot be written, or is full.
    """
    text = json.dumps([FORMAT, key], sort_keys=True, default=str)
    folder = cache() / hashlib.sha256(text.encode()).hexdigest()[:32]
    if folder.exists():
        return folder
    try:
        cache().mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=cache()))
    except OSError as error:
        raise DataError(
            f"cannot write the cache {cache()}: {error.strerror}; set GENTRAIN_CACHE to another folder"
        ) from error
    try:
        make(unfinished)
        unfinished.chmod(0o755)  # a cache may be shared by users
        (unfinished / "key.json").write_text(text)
        for path in (*unfinished.rglob("*"), unfinished):  # a power cut must not leave the name without the contents
            sync(path)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        sync(cache())
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DataError(f"the cache {cache()} is full: make room, or set GENTRAIN_CACHE to another folder") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def files_identity(files: list[Path]) -> list[tuple[str, int, int]]:
    """(path, bytes, nanoseconds of the last change) of each: tells that files have not changed without reading them."""
    return [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


class Writer:
    """Writes a corpus document by document; nothing but the documents' lengths and labels is held in memory.

    To be used in a `with` block that ends with finish(). All splits' contexts are in one file.
    """

    def __init__(self, folder: Path, dtype: type | np.dtype = np.uint8):
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.files: dict[str, Any] = {split: (folder / f"{split}.tokens").open("wb") for split in SPLITS}
        self.lengths = {split: array.array("q") for split in SPLITS}
        self.labels = {split: array.array("i") for split in SPLITS}
        self.characters = dict.fromkeys(SPLITS, 0)
        self.contexts = 0

    def context(self, values: np.ndarray) -> int:
        """Adds a context, uint8 and of the same shape as all; returns its number, the label of documents about it."""
        if not self.contexts:
            self.files["contexts"] = (self.folder / "contexts").open("wb")
        self.files["contexts"].write(np.ascontiguousarray(values, np.uint8))
        self.contexts += 1
        return self.contexts - 1

    def add(self, split: str, tokens: bytes | np.ndarray, label: int | None = None) -> None:
        """Adds one document; tokens are bytes or of the corpus's dtype."""
        self.files[split].write(tokens)
        self.lengths[split].append(len(tokens))
        if label is not None:
            self.labels[split].append(label)

    def extend(self, split: str, tokens: np.ndarray, lengths: np.ndarray, characters: int) -> None:
        """Adds many documents at once: their tokens side by side, and how many each has; characters: in all of them."""
        self.files[split].write(np.ascontiguousarray(tokens, self.dtype))
        self.lengths[split].frombytes(np.asarray(lengths, np.int64).tobytes())
        self.characters[split] += characters

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self.files.values():
            file.close()

    def finish(self, **meta: Any) -> None:
        """Notes what was written, with the maker's own meta; without it the folder is no corpus."""
        for split in SPLITS:
            offsets = np.concatenate([[0], np.cumsum(np.asarray(self.lengths[split], np.int64))]).astype(np.int64)
            offsets.tofile(self.folder / f"{split}.offsets")
            np.asarray(self.labels[split], np.int32).tofile(self.folder / f"{split}.labels")
        meta |= {"dtype": self.dtype.name, "characters": self.characters, "contexts": self.contexts}
        meta["documents"] = {split: len(self.lengths[split]) for split in SPLITS}
        meta["tokens"] = {split: sum(self.lengths[split]) for split in SPLITS}
        (self.folder / "meta.json").write_text(json.dumps(meta))


def read(folder: Path) -> Corpus:
    """Opens a corpus, without reading its tokens. Raises DataError where a file has not the size that it was given."""
    meta = json.loads((folder / "meta.json").read_text())

    def map_file(name: str, dtype: str, *shape: int) -> np.ndarray:
        file, size = folder / name, math.prod(shape)
        if file.stat().st_size != size * np.dtype(dtype).itemsize:
            raise DataError(
                f"{file} has {file.stat().st_size} bytes, not {size} {dtype}s: delete {folder}, it is made anew"
            )
        return np.memmap(file, dtype, "r", shape=shape) if size else np.zeros(shape, dtype)

    contexts = None
    if meta.get("contexts"):
        contexts = map_file("contexts", "uint8", meta["contexts"], *meta["context_shape"])
    labelled = bool(meta.get("classes")) or contexts is not None
    splits = {}
    for split in SPLITS:
        tokens, documents = meta["tokens"][split], meta["documents"][split]
        splits[split] = Arrays(
            map_file(f"{split}.tokens", meta["dtype"], tokens),
            map_file(f"{split}.offsets", "int64", documents + 1),
            map_file(f"{split}.labels", "int32", documents if labelled else 0),
            meta["characters"][split] or tokens,
            contexts,
        )
    return Corpus(folder.name, meta, splits)


def blocks(arrays: Arrays, size: int = 1 << 23) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Whole documents, about `size` tokens at a time: (tokens, lengths)."""
    first, last = 0, len(arrays.offsets) - 1
    while first < last:
        stop = int(np.searchsorted(arrays.offsets, arrays.offsets[first] + size, "right")) - 1
        stop = min(max(stop, first + 1), last)
        yield arrays.tokens[arrays.offsets[first] : arrays.offsets[stop]], np.diff(arrays.offsets[first : stop + 1])
        first = stop
