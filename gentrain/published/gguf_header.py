"""The header of a GGUF file: what it says of a model, and where its tensors lie.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package gguf reads it too, but trusts every
length that a file names, so that one wrong byte can take all memory, and needs seconds for a real vocabulary.
"""

import mmap
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

VERSIONS = (2, 3)
SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}  # a value's kind: as struct and numpy name it
TEXT, ARRAY = 8, 9
MOST_DIMENSIONS = 4  # that ggml has
ALIGNMENT = 32  # bytes, where the file names no other

T = TypeVar("T")


class Tensor(NamedTuple):
    """shape: its rows first. kind: ggml's number of how its values are stored. start: the place of its first byte."""

    shape: tuple[int, ...]
    kind: int
    start: int


class Header(NamedTuple):
    """said: what the file says, by key; a list of texts or an array where it is several values. tensors: by name."""

    said: dict[str, Any]
    tensors: dict[str, Tensor]

    def find(self, key: str, kind: type, default: Any = None) -> Any:
        """What it says under a key; None as a default: it must say it. Raises ValueError for another type."""
        value = self.said.get(key, default)
        if type(value) is not kind:
            found = "missing" if value is None else f"of the type {type(value).__name__}"
            raise ValueError(f"its {key} is {found}: expected {kind.__name__}")
        return value


class Cursor:
    """Takes values out of a file one after the other. Raises ValueError where the file ends before one does."""

    def __init__(self, content: mmap.mmap):
        self.content, self.at = content, 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > len(self.content) - self.at:
            raise ValueError(f"it ends within its header, after {len(self.content)} bytes")
        self.at += size
        return self.content[self.at - size : self.at]

    def number(self, code: str) -> Any:
        """A scalar; code: as struct names it."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        """A text, with its length before it."""
        return self.take(self.number("Q")).decode()

    def value(self, kind: int) -> Any:
        """What metadata can hold."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            raise ValueError(f"its metadata hold a value of the unknown kind {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner == TEXT:
            return [self.text() for _ in range(count)]
        if inner not in SCALARS:
            raise ValueError(f"its metadata hold a list of the unknown kind {inner}")
        dtype = np.dtype(SCALARS[inner]).newbyteorder("<")
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)

    def tensor(self) -> Tensor:
        """A tensor's entry, whose place is yet counted from the end of the header."""
        if (dimensions := self.number("I")) > MOST_DIMENSIONS:
            raise ValueError(f"it has a tensor of {dimensions} dimensions: expected at most {MOST_DIMENSIONS}")
        sizes = [self.number("Q") for _ in range(dimensions)]
        return Tensor(tuple(reversed(sizes)), self.number("I"), self.number("Q"))

    def named(self, count: int, read: Callable[[], T]) -> dict[str, T]:
        """As many values, each with its name before it."""
        found: dict[str, T] = {}
        for _ in range(count):
            name = self.text()
            if name in found:
                raise ValueError(f"it names {name} twice")
            found[name] = read()
        return found


def read_header(content: mmap.mmap) -> Header:
    """The header at the beginning of a file. Raises ValueError, with what is wrong."""
    cursor = Cursor(content)
    if content[:4] != b"GGUF":
        raise ValueError(f"it begins with {content[:4]!r}: expected b'GGUF'")
    cursor.take(4)
    if (version := cursor.number("I")) not in VERSIONS:
        raise ValueError(f"its version is {version}: expected 2 or 3, in little-endian order")
    tensor_count, count = cursor.number("Q"), cursor.number("Q")
    said = cursor.named(count, lambda: cursor.value(cursor.number("I")))
    tensors = cursor.named(tensor_count, cursor.tensor)
    alignment = said.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"its general.alignment is {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    return Header(said, {name: entry._replace(start=start + entry.start) for name, entry in tensors.items()})
