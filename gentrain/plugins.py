"""Plug-ins are files: a config name is a file's name in its room, so there is no list to append to.

A room is a package whose modules build something of one kind. The options of `<name>.py` (or of a folder `<name>/`)
stand beside it in `<name>_options.py`, which imports no JAX, and `<name>_published.py` says where the parameters of a
model lie in those that others publish. GENTRAIN_PLUGINS names folders, separated like PATH, whose sub-folders
objectives/, models/, … add to the rooms of the same name.
"""

import functools
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from gentrain.errors import ConfigError

ROOMS = {  # package -> what one of its plug-ins is called, and the key that selects it
    "objectives": "objective.name",
    "models": "model.name",
    "datasets.sources": "data.name",
    "evaluators": "evaluate.evaluators",
    "reporting.figures": "report.figures",
    "reporting.loggers": "log.loggers",
}
BUILDS = re.compile(r"^def (build|draw|read)\(", re.MULTILINE)


@functools.cache
def package(room: str) -> ModuleType:
    """The room's package, whose path takes in the folders of GENTRAIN_PLUGINS."""
    found = importlib.import_module(f"gentrain.{room}")
    for root in filter(None, os.environ.get("GENTRAIN_PLUGINS", "").split(os.pathsep)):
        found.__path__.append(str(Path(root).absolute() / room.rpartition(".")[2]))
    return found


def files(room: str) -> Iterator[tuple[str, Path]]:
    """(name, file) of every module of the room."""
    for folder in map(Path, package(room).__path__):
        yield from ((file.stem, file) for file in folder.glob("*.py"))
        yield from ((file.parent.name, file) for file in folder.glob("*/__init__.py"))


@functools.cache
def names(room: str) -> tuple[str, ...]:
    """The plug-ins of a room: its modules that build, draw or read something. None of them is imported."""
    return tuple(sorted({name for name, file in files(room) if BUILDS.search(file.read_text())}))


def load(room: str, name: str) -> ModuleType:
    """Imports a plug-in. Raises ConfigError for an unknown name, listing those there are."""
    require(room, name)
    return importlib.import_module(f"gentrain.{room}.{name}")


@functools.cache
def companion(room: str, name: str, kind: str) -> ModuleType | None:
    """What stands beside the plug-in in <name>_<kind>.py, its 'options' or what of it is 'published'; None: nothing."""
    module = f"{name}_{kind}"
    if module not in {stem for stem, _ in files(room)}:
        return None
    return importlib.import_module(f"gentrain.{room}.{module}")


def require(room: str, name: str) -> None:
    """Raises ConfigError for a name that no plug-in of the room has."""
    if name not in names(room):
        raise ConfigError(f"{ROOMS[room]}={name!r}: expected one of {', '.join(names(room))}")
