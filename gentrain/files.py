"""JSON files of a workdir: they are written whole and read as they stand."""

import json
import os
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
