"""A corpus on disk: memory-mapped tokens, document offsets and contexts, cached under what determines them.

One folder a corpus: <split>.tokens, <split>.offsets (int64), <split>.labels (int32), contexts (uint8) and meta.json.
Every folder of the cache has key.json: what it was made for, and a digest of each of its files.
"""

import array
import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gentrain.errors import FULL, DamagedExample, DataError
from gentrain.files import sync

SPLITS = ("train", "valid", "test")
KEY = "key.json"
UNFINISHED = "unfinished-"  # begins the name of a folder that is being filled, before its host and process
ABANDONED = 86_400  # seconds after which such a folder is nobody's, wherever its process was
FORMAT = 2  # part of every key: raise it when the files below, or how a source is read, change


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

    digest: of the contents of all its files. meta: what its maker noted: kind ('text' or 'image'); for images shape,
    top (the largest value) and classes; where there are contexts context_shape and, where these are symbols 1, 2, …
    (0: padding), the alphabet they number. And, noted by the writer, documents and tokens by split, and repeated: how
    many documents of valid and test stand in train too, with the same label or context. And damaged: how many examples
    were left out because they cannot be read.
    """

    digest: str
    meta: dict[str, Any]
    splits: dict[str, Arrays]


def cache() -> Path:
    """The folder of everything that can be made anew: GENTRAIN_CACHE, or ~/.cache/gentrain."""
    return Path(os.environ.get("GENTRAIN_CACHE") or Path.home() / ".cache" / "gentrain").expanduser().absolute()


def cached(key: Any, make: Callable[[Path], None]) -> Path:
    """The folder that make(folder) filled for this key (JSON), made only if it is not there yet, or is damaged.

    It appears whole or not at all, so processes may race for it: the first one wins and all read the same files. All of
    them are read and compared with their digests, about 0.6 s a GB. Raises DataError where the cache cannot be written,
    or is full.
    """
    text = json.dumps([FORMAT, key], sort_keys=True, default=str)
    folder = cache() / hashlib.sha256(text.encode()).hexdigest()[:32]
    if folder.exists():
        if not (damaged := damage(folder)):
            return folder
        warnings.warn(f"{folder / damaged} in the cache is damaged; the entry is made anew", stacklevel=2)
        discard(folder)
    try:
        cache().mkdir(parents=True, exist_ok=True)
        prefix = f"{UNFINISHED}{socket.gethostname()}-{os.getpid()}-"
        unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=cache()))
    except OSError as error:
        raise DataError(
            f"cannot write the cache {cache()}: {error.strerror}; set GENTRAIN_CACHE to another folder"
        ) from error
    claim = os.open(unfinished, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(claim, fcntl.LOCK_EX)
        make(unfinished)
        unfinished.chmod(0o755)  # a cache may be shared by users
        (unfinished / KEY).write_text(json.dumps({"key": text, "files": digests(unfinished)}))
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
        os.close(claim)
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file of an entry but key.json, by its path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / KEY:
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def damage(folder: Path) -> str:
    """The first file of an entry that is not as it was written; an empty string where all are."""
    try:
        noted = json.loads((folder / KEY).read_bytes())["files"]
        found = digests(folder)
        return next((name for name in sorted(noted.keys() | found.keys()) if noted.get(name) != found.get(name)), "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return KEY


def discard(folder: Path) -> None:
    """Takes an entry out of the cache; who has its files open can go on reading them."""
    away = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{socket.gethostname()}-{os.getpid()}-", dir=cache()))
    with contextlib.suppress(FileNotFoundError):  # another process was first
        folder.rename(away / folder.name)
    shutil.rmtree(away, ignore_errors=True)


def clean_up() -> None:
    """Removes what killed processes left unfinished: of this host if they are gone, of others after a day."""
    for folder in cache().glob(f"{UNFINISHED}*"):
        host, _, process = folder.name.removeprefix(UNFINISHED).rpartition("-")[0].rpartition("-")
        here = host == socket.gethostname() and process.isdigit()
        with contextlib.suppress(FileNotFoundError):  # it was finished just now
            old = time.time() - folder.stat().st_mtime > ABANDONED
            if old or (here and not is_running(int(process)) and not is_claimed(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def is_running(process: int) -> bool:
    """Whether there is a process of that number on this host."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def is_claimed(folder: Path) -> bool:
    """Whether a process holds the folder, one of another container too, which has numbers of its own."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def files_identity(files: list[Path]) -> list[tuple[str, int, int, int]]:
    """(path, bytes, nanoseconds of the last change and of the last change of anything about it) of each.

    It tells that files have not changed without reading them; the last is not for a user to set. Raises DataError for a
    link to nothing.
    """
    try:
        stats = [(str(file.absolute()), file.stat()) for file in files]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}; repair or remove it") from error
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats]


class Writer:
    """Writes a corpus document by document; nothing but the documents' lengths and labels is held in memory.

    To be used in a `with` block that ends with finish(). All splits' contexts are in one file. max_damaged: the share
    of the examples that may be left out because they cannot be read.
    """

    def __init__(self, folder: Path, dtype: type | np.dtype = np.uint8, max_damaged: float = 0.0):
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.max_damaged, self.damaged = max_damaged, list[str]()
        self.files: dict[str, Any] = {split: (folder / f"{split}.tokens").open("wb") for split in SPLITS}
        self.lengths = {split: array.array("q") for split in SPLITS}
        self.labels = {split: array.array("i") for split in SPLITS}
        self.hashes = {split: array.array("q") for split in SPLITS}  # of each document that `add` was given
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
        self.hashes[split].append(hash((bytes(tokens), label)))
        if label is not None:
            self.labels[split].append(label)

    def extend(self, split: str, tokens: np.ndarray, lengths: np.ndarray, characters: int) -> None:
        """Adds many documents at once: their tokens side by side, and how many each has; characters: in all of them."""
        self.files[split].write(np.ascontiguousarray(tokens, self.dtype))
        self.lengths[split].frombytes(np.asarray(lengths, np.int64).tobytes())
        self.characters[split] += characters

    @contextlib.contextmanager
    def may_be_damaged(self) -> Iterator[None]:
        """A block that reads and adds one example, which is left out and counted if it is damaged and some may be."""
        try:
            yield
        except DamagedExample as error:
            if not self.max_damaged:
                raise
            self.damaged.append(str(error))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self.files.values():
            file.close()

    def finish(self, **meta: Any) -> None:
        """Notes what was written, with the maker's own meta; without it the folder is no corpus.

        Raises DataError where more than max_damaged of the examples were left out.
        """
        self.check_damaged()
        for split in SPLITS:
            offsets = np.concatenate([[0], np.cumsum(np.asarray(self.lengths[split], np.int64))]).astype(np.int64)
            offsets.tofile(self.folder / f"{split}.offsets")
            np.asarray(self.labels[split], np.int32).tofile(self.folder / f"{split}.labels")
        meta |= {"dtype": self.dtype.name, "characters": self.characters, "contexts": self.contexts}
        meta["documents"] = {split: len(self.lengths[split]) for split in SPLITS}
        meta["tokens"] = {split: sum(self.lengths[split]) for split in SPLITS}
        train = np.unique(self.hashes["train"])
        meta["repeated"] = sum(int(np.isin(self.hashes[split], train).sum()) for split in ("valid", "test"))
        meta["damaged"] = len(self.damaged)
        (self.folder / "meta.json").write_text(json.dumps(meta))

    def check_damaged(self) -> None:
        """Raises DataError where more than max_damaged of the examples were left out."""
        left_out = len(self.damaged)
        total = left_out + sum(map(len, self.lengths.values()))
        if left_out > self.max_damaged * total:
            raise DataError(
                f"{left_out} of {total} examples cannot be read, more than data.max_damaged = {self.max_damaged:g}"
                f" allows; the first: {self.damaged[0]}"
            )


def read(folder: Path) -> Corpus:
    """Opens a corpus that `cached` has made or compared."""
    meta = json.loads((folder / "meta.json").read_text())
    noted = json.loads((folder / KEY).read_text())["files"]

    def map_file(name: str, dtype: str, *shape: int) -> np.ndarray:
        return np.memmap(folder / name, dtype, "r", shape=shape) if math.prod(shape) else np.zeros(shape, dtype)

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
    return Corpus(digest_of(noted), meta, splits)


def digest_of(content: Any) -> str:
    """A digest of JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def blocks(arrays: Arrays, size: int = 1 << 23) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Whole documents, about `size` tokens at a time: (tokens, lengths)."""
    first, last = 0, len(arrays.offsets) - 1
    while first < last:
        stop = int(np.searchsorted(arrays.offsets, arrays.offsets[first] + size, "right")) - 1
        stop = min(max(stop, first + 1), last)
        yield arrays.tokens[arrays.offsets[first] : arrays.offsets[stop]], np.diff(arrays.offsets[first : stop + 1])
        first = stop
