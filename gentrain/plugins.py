"""Plug-ins are files: a config name is a file's name in its room, so there is no list to append to."""

import importlib
import re
from pathlib import Path
from types import ModuleType

from gentrain.errors import ConfigError


def names(room: str) -> list[str]:
    """The plug-ins of a room ('models', 'objectives', 'evaluators', 'figures'): its files that build or draw something.

    Found without importing any.
    """
    files = (Path(__file__).parent / room).glob("*.py")
    return sorted(file.stem for file in files if re.search(r"^def (build|draw)\(", file.read_text(), re.MULTILINE))


def load(room: str, name: str) -> ModuleType:
    """Imports gentrain/<room>/<name>.py; an unknown name raises a ConfigError that lists those there are."""
    if name not in names(room):
        raise ConfigError(f"no {room[:-1]} is named {name!r}; there are: {', '.join(names(room))}")
    return importlib.import_module(f"gentrain.{room}.{name}")
