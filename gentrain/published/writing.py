"""A Hugging Face folder, written."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gentrain.errors import ConfigError
from gentrain.files import write_bytes, write_json
from gentrain.published.folder import INDEX

FILE_BYTES = 4 << 30  # of a file of tensors, at most, if no tensor alone is larger


def write_folder(out: Path, config: dict[str, Any], tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """config.json and safetensors, with an index where it takes several files. Each file's tensors are in memory.

    Raises ConfigError for a folder that holds anything.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    parts: list[list[str]] = []
    waiting: dict[str, np.ndarray] = {}
    for name, tensor in tensors:
        if waiting and sum(one.nbytes for one in waiting.values()) + tensor.nbytes > FILE_BYTES:
            parts.append(write_part(out, len(parts), waiting))
            waiting = {}
        waiting[name] = tensor
    parts.append(write_part(out, len(parts), waiting))
    name_parts(out, parts)
    write_json(out / "config.json", config)  # the last: it tells that the folder is whole


def write_part(out: Path, number: int, tensors: dict[str, np.ndarray]) -> list[str]:
    """One file of tensors, under a name of its own for now."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(one) for name, one in tensors.items()}, part(out, number), {"format": "pt"})
    part(out, number).chmod(0o644)  # the library lets nobody else read it
    return list(tensors)


def part(out: Path, number: int) -> Path:
    return out / f"part-{number}.safetensors"


def name_parts(out: Path, parts: list[list[str]]) -> None:
    """Files by the names that they have everywhere, now that it is known how many there are."""
    if len(parts) == 1:
        part(out, 0).rename(out / "model.safetensors")
        return
    names = [f"model-{number:05}-of-{len(parts):05}.safetensors" for number in range(1, len(parts) + 1)]
    for number, name in enumerate(names):
        part(out, number).rename(out / name)
    size = sum((out / name).stat().st_size for name in names)
    places = {tensor: name for name, tensors in zip(names, parts, strict=True) for tensor in tensors}
    write_bytes(out / INDEX, json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=1).encode())
