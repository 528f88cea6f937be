"""Lines for the person in front of a run, who may go away without ending it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
    """A line, by default on stdout."""
    write(f"{text}\n", stream)


def write(text: str, stream: TextIO | None = None) -> None:
    """A part of a line, which is seen at once."""
    stream = stream or sys.stdout
    with unless_gone(stream):
        stream.write(text)


@contextlib.contextmanager
def unless_gone(stream: TextIO) -> Iterator[None]:
    """What is written inside is dropped, and all that follows, once nobody is there to read: a closed pipe or terminal
    ends no run."""
    try:
        yield
        stream.flush()
    except OSError:
        silence(stream)


def silence(stream: TextIO) -> None:
    """From here on the stream leads nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush() -> None:
    """Leaves nothing that the interpreter's own way out would fail to write."""
    for stream in (sys.stdout, sys.stderr):
        with unless_gone(stream):
            pass
