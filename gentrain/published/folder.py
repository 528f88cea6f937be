"""A Hugging Face folder: config.json, safetensors in one file or many, tokenizer.json. Pickles are never opened."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gentrain.errors import CheckpointError, ConfigError
from gentrain.files import open_regular
from gentrain.published import Published, Stored

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}


def open_folder(folder: Path) -> Published:
    """The model in a folder. Raises ConfigError where there is no such folder, CheckpointError where it holds no model
    that can be read."""
    config = read_config(folder)
    tokenizer, beside = folder / "tokenizer.json", folder / "tokenizer_config.json"
    begin, end, adds_begin = special_tokens(folder, config) if tokenizer.exists() else (*ends_of(config), True)
    return Published(
        where=f"hf:{folder}",
        config=config,
        tensors=dict(tensors(folder)),
        tokenizer=(lambda: read_bytes(tokenizer)) if tokenizer.exists() else None,
        begin=begin,
        end=end,
        adds_begin=adds_begin,
        tokenizer_config=json_of(beside),
    )


def read_bytes(path: Path) -> bytes:
    """Raises CheckpointError for what is no regular file."""
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError for anything but a JSON object."""
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is no JSON object")
    return content


def json_of(path: Path) -> dict[str, Any]:
    """The same, or {} where there is no such file."""
    return read_json(path) if path.exists() else {}


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises ConfigError where there is no folder, or it has none."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder} is no model: it has no config.json")
    return read_json(folder / "config.json")


def tensors(folder: Path) -> Iterator[tuple[str, Stored]]:
    """Every tensor of the folder by its name. Nothing of them is read yet."""
    for file in files(folder):
        yield from tensors_of(file)


def files(folder: Path) -> list[Path]:
    """The safetensors of a folder. Raises CheckpointError where there are none, or one of the index is not there."""
    if (folder / INDEX).exists():
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) and "/" not in name for name in named.values()):
            raise CheckpointError(f"{folder / INDEX} is damaged: its weight_map does not name files of the folder")
        found = sorted({folder / name for name in named.values()})
    else:
        found = sorted(folder.glob("*.safetensors"))
    for file in found:
        if not file.is_file():
            raise CheckpointError(f"{file} is not there, and {INDEX} names it")
    if not found:
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        other = f" but {pickles[0]}, which can run code and is never opened: save it as safetensors" if pickles else ""
        raise CheckpointError(f"{folder} has no safetensors{other}")
    return found


def tensors_of(file: Path) -> Iterator[tuple[str, Stored]]:
    """Every tensor of one file, which is mapped into memory. Raises CheckpointError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(file, framework="numpy").__enter__()  # open as long as one of its tensors is
        for name in opened.keys():  # noqa: SIM118, it is no dict
            part = opened.get_slice(name)
            if part.get_dtype() not in DTYPES:
                raise CheckpointError(f"{file}: {name} is of type {part.get_dtype()}: expected {', '.join(DTYPES)}")
            yield name, Stored(tuple(part.get_shape()), dtype_of(part.get_dtype()), part.__getitem__)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def dtype_of(name: str) -> np.dtype:
    """NumPy's type of that name in a file."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "BF16" else DTYPES[name])


@functools.lru_cache(2)  # of a large vocabulary it takes long, and a start asks several times
def parse_tokenizer(content: bytes) -> Any:
    """The library's tokenizer of a tokenizer.json. Raises what that library raises, a bare Exception."""
    from tokenizers import Tokenizer

    return Tokenizer.from_buffer(content)


def ends_of(said: dict[str, Any]) -> tuple[int | None, int | None]:
    """The numbers of the begin and the end token as config.json says them; of several ends the first."""
    ends = said.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    return said.get("bos_token_id"), ends[0] if ends else None


def special_tokens(folder: Path, config: dict[str, Any]) -> tuple[int | None, int | None, bool]:
    """The numbers of the begin and the end token, and whether the tokenizer puts the first before a text.

    tokenizer_config.json says which they are, or else config.json. Raises CheckpointError for a damaged tokenizer.
    """
    try:
        tokenizer = parse_tokenizer(read_bytes(folder / "tokenizer.json"))
    except Exception as error:  # the library raises a bare one
        raise CheckpointError(f"{folder / 'tokenizer.json'} is damaged: {error}") from error
    named = json_of(folder / "tokenizer_config.json")
    begin, end = ends_of(config)

    def number(key: str, otherwise: int | None) -> int | None:
        token = named.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        return otherwise if token is None else tokenizer.token_to_id(token)

    begin, end = number("bos_token", begin), number("eos_token", end)
    added = tokenizer.encode("").ids
    return begin, end, bool(added) and added[0] == begin
