"""What a teacher says of every row of train, written down once and read in place of asking it.

A folder has a file for each array, (rows, length, size), in the order of the rows, and taught.json: what the rows and
the teacher are, and digests of each chunk of rows, which are added once the chunk is on disk.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401, numpy then knows bfloat16
import numpy as np

from gentrain import files
from gentrain.datasets.rows import Shuffled
from gentrain.datasets.spec import Beside, Spec
from gentrain.errors import ConfigError, DataError
from gentrain.options.tree import as_tuple

NOTE = "taught.json"
CHUNK = 2**24  # bytes of a row's arrays that are written at once, and that a kill loses at most
TYPES = ("float32", "float16", "bfloat16", "int32")
AGAIN = "the same `python -m launch.teach` writes it"


def describe(spec: Spec, train: Any, layout: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """What the rows of train are, as JSON. Raises ConfigError where train has no rows that can be numbered."""
    if not isinstance(train, Shuffled):
        raise ConfigError("a teacher is written down for examples that are stored: expected a data.name that has them")
    numbers = {"rows": [part.rows for part in train.parts], "length": spec.length, "vocab": spec.vocab}
    return {"digests": dict(digests), **numbers, "context_vocab": spec.context_vocab, "layout": layout}


class Writer:
    """Writes a folder by chunks of rows. One that was begun is gone on with behind its last sound chunk.

    note: what the rows and the teacher are, as JSON; its "arrays" are those of spec.Beside. chunk: rows of each but the
    last. done: rows that are written. Raises ConfigError for a folder that was begun with another note.
    """

    def __init__(self, folder: Path, note: Mapping[str, Any], chunk: int):
        self.folder, self.note, self.sums = folder, {**note, "chunk": chunk}, list[dict[str, str]]()
        if (folder / NOTE).exists():
            found = read_note(folder)
            for name, value in self.note.items():
                if as_tuple(found[name]) != as_tuple(value):
                    what = "data.batch_size" if name == "chunk" else name
                    raise ConfigError(f"--out={folder} was begun with other {what}: remove it, or choose another")
            self.sums = found["sums"][: sound(folder, found)]
        self.done = min(len(self.sums) * chunk, rows_of(self.note))

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The next rows, a chunk of them."""
        sums = {}
        for (name, *_), (begin, size) in zip(self.note["arrays"], places(self.note, len(self.sums)), strict=True):
            content = arrays[name].tobytes()
            assert len(content) == size
            with (self.folder / name).open("ab") as file:
                file.truncate(begin)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            sums[name] = hashlib.sha256(content).hexdigest()
        self.sums.append(sums)
        files.write_json(self.folder / NOTE, {**self.note, "sums": self.sums})
        self.done = min(len(self.sums) * self.note["chunk"], rows_of(self.note))


class Taught:
    """A source of batches beside which is what the folder says of their rows. See build.Source."""

    def __init__(self, source: Shuffled, folder: Path, note: Mapping[str, Any]):
        self.source, rows = source, rows_of(note)
        self.starts = np.cumsum([0, *note["rows"]])
        self.arrays = {
            name: np.memmap(folder / name, dtype, "r", shape=(rows, note["length"], size))
            for name, size, dtype in note["arrays"]
        }

    def batch(self, step: int) -> dict[str, np.ndarray]:
        sources, part_rows = self.source.places(step)
        numbers = self.starts[sources] + part_rows
        return self.source.batch(step) | {name: np.asarray(array[numbers]) for name, array in self.arrays.items()}


def open_folder(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The note of a finished folder, every byte of which is read and compared, about 0.6 s a GB.

    wanted: what `describe` says of the data. Raises ConfigError for a folder that is of other data, DataError for one
    that is damaged or not finished.
    """
    key = f"data.taught={str(folder)!r}"
    if not (folder / NOTE).exists():
        raise ConfigError(f"{key}: there is no {NOTE}: expected a folder that `python -m launch.teach` wrote")
    note = read_note(folder)
    for name, now in wanted["digests"].items():
        if note["digests"].get(name) != now:
            raise ConfigError(f"{key} is of another {name} than the run's: expected one that was written of these data")
    for name, value in wanted.items():
        if note[name] != value:
            raise ConfigError(f"{key} was written for {name}={note[name]}, and the data have {value}")
    if (good := min(sound(folder, note) * note["chunk"], rows_of(note))) < rows_of(note):
        raise DataError(f"{folder} is damaged or not written from row {good:,} of {rows_of(note):,} on; {AGAIN}")
    return note


def beside(note: Mapping[str, Any]) -> tuple[Beside, ...]:
    """The arrays of a folder, as a spec names them."""
    return tuple(Beside(*array) for array in note["arrays"])


def read_note(folder: Path) -> dict[str, Any]:
    """taught.json. Raises DataError where it is damaged, or names files elsewhere or of other types."""
    try:
        note = files.parse((folder / NOTE).read_bytes())
        bounds = places(note, len(note["sums"]))
        whole = all(type(number) is int and number >= 0 for bound in bounds for number in bound)
        whole &= all(name == Path(name).name and dtype in TYPES for name, _, dtype in note["arrays"])
        whole &= all(isinstance(one, dict) for one in (note["digests"], note["asked"], *note["sums"]))
        whole &= {"context_vocab", "layout", "vocab"} <= note.keys()
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise DataError(f"{folder / NOTE} is damaged: remove {folder}, and {AGAIN} anew")
    return note


def rows_of(note: Mapping[str, Any]) -> int:
    return sum(note["rows"])


def bytes_of_row(note: Mapping[str, Any]) -> int:
    """In all files."""
    return sum(note["length"] * size * np.dtype(dtype).itemsize for _, size, dtype in note["arrays"])


def places(note: Mapping[str, Any], number: int) -> list[tuple[int, int]]:
    """The first byte of a chunk in the file of each array, and how many bytes it has."""
    first = number * note["chunk"]
    rows = max(min(note["chunk"], rows_of(note) - first), 0)
    of_row = [note["length"] * size * np.dtype(dtype).itemsize for _, size, dtype in note["arrays"]]
    return [(first * size, rows * size) for size in of_row]


def sound(folder: Path, note: Mapping[str, Any]) -> int:
    """How many chunks from the first on are as they were written."""
    for number, sums in enumerate(note["sums"]):
        for (name, *_), (begin, size) in zip(note["arrays"], places(note, number), strict=True):
            if sums.get(name) != digest(folder / name, begin, size):
                return number
    return len(note["sums"])


def digest(path: Path, begin: int, size: int) -> str:
    """sha256 of a piece of a file; '' where there is none."""
    try:
        with files.open_regular(path) as file:
            file.seek(begin)
            return hashlib.sha256(file.read(size)).hexdigest()
    except OSError:
        return ""
