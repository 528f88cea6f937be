"""Plug-ins are files: a config name is a file's name in its room, so there is no list to append to."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from gentrain.errors import ConfigError


def names(room: str) -> list[str]:
    """The plug-ins of a room ('models', 'objectives', 'evaluators'), found without importing any."""
    return sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent / room)]))


def load(room: str, name: str) -> ModuleType:
    """Imports gentrain/<room>/<name>.py; an unknown name raises a ConfigError that lists those there are."""
    if name not in names(room):
        raise ConfigError(f"no {room[:-1]} is named {name!r}; there are: {', '.join(names(room))}")
    return importlib.import_module(f"gentrain.{room}.{name}")
