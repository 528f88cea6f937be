"""JSON files of a workdir: written whole and read as they stand; and how a file of unknown origin is opened."""

import io
import json
import os
import stat
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Writes the whole file or nothing: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """What write_json wrote, or {} where there is no such file."""
    return json.loads(path.read_text()) if path.exists() else {}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of metrics.jsonl in order of step, or [] where there is no such file.

    Lines of one step are merged; where a resumed run did a step again the later line counts. A line cut short by a kill
    is skipped.
    """
    merged: dict[int, dict[str, Any]] = {}
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        merged.setdefault(record["step"], {}).update(record)
    return [merged[step] for step in sorted(merged)]


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
