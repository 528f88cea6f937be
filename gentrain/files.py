"""Files of a workdir: they are written whole, and what is damaged is named when it is read; and how a file of unknown
origin is opened."""

import contextlib
import io
import json
import os
import stat
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gentrain.errors import CheckpointError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end, or never: a reader never sees half a file, nor
    does a power cut leave one."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")  # other processes, of other hosts too, may write it
    with naming(path):
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What the operating system refuses inside is told of this file; of a write it would name none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) if error.errno else error from None


def sync(path: Path) -> None:
    """Returns when a file, or what is in a folder, would outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes the whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes the whole file or nothing."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def note_json(path: Path, value: Any) -> None:
    """As write_json, for what a run can do without: a warning where it cannot be written."""
    try:
        write_json(path, value)
    except OSError as error:
        warnings.warn(f"{path} is not written: {error.strerror}", stacklevel=2)


def require_json(path: Path) -> dict[str, Any]:
    """What write_json wrote, or {} where there is no such file. Raises CheckpointError where it is damaged."""
    try:
        return parse(path.read_bytes()) if path.exists() else {}
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); put a good copy in its place, or delete it, and the command that trains here"
            " writes it anew"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """As require_json, for what is written anew anyway: where it is damaged, a warning and {}."""
    try:
        return require_json(path)
    except CheckpointError:
        warnings.warn(f"{path} is damaged, and is taken for empty", stacklevel=2)
        return {}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of metrics.jsonl in order of step, or [] where there is no such file.

    Lines of one step are merged, and of two values of a name the later counts. A line of an earlier step than the line
    before it is of a run that went back: what it had written of later steps is no longer so, and is left out. Lines
    that are no such objects, as one cut short by a kill, are left out with a warning.
    """
    merged: dict[int, dict[str, Any]] = {}
    newest, bad = 0, []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        try:
            record = parse(line)
        except ValueError:
            record = {}
        if type(record.get("step")) is int and all(isinstance(one, int | float | None) for one in record.values()):
            if record["step"] < newest:
                merged = {step: known for step, known in merged.items() if step <= record["step"]}
            newest = record["step"]
            merged.setdefault(newest, {}).update(record)
        else:
            bad.append(number)
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        warnings.warn(f"{path}: line {bad[0]}{more} cannot be read and is left out", stacklevel=2)
    return [merged[step] for step in sorted(merged)]


def parse(text: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else."""
    if not text.strip():
        raise ValueError("empty")
    value = json.loads(text.decode())
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def open_regular(path: Path, root: Path | None = None) -> io.BufferedReader:
    """A file of unknown origin, opened to be read. Links are followed, but never out of the folder `root`.

    Raises OSError for what is no regular file (a pipe would be waited for, a device may have no end) and for a link
    that leads out of root.
    """
    real = Path(os.path.realpath(path, strict=True))
    if root is not None and not real.is_relative_to(os.path.realpath(root)):
        raise OSError(f"{path} leads out of {root}, to {real}")
    if not real.is_file():
        raise OSError(f"{path} is no regular file")
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was exchanged just now
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")
