"""Loggers: where else a run's numbers go than into metrics.jsonl, one file each, imported only when it is asked for.

A logger's file imports the package that it needs and has build(workdir, config) -> Logger; config is flat. The run that
was logged before goes on where the workdir knows of it. What a logger raises while it is built ends the command; what
it raises later ends the logger.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gentrain import plugins
from gentrain.errors import ConfigError, Stopped, first_line


class Logger(Protocol):
    """Takes the numbers of a step, of which there may be several lots, and of steps done once more other ones."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Loggers:
    """Loggers by their names; one that fails is left out from then on, with a warning."""

    def __init__(self, names: Sequence[str], workdir: Path, config: Mapping[str, Any], *, primary: bool = True):
        """Only the primary process logs. Raises ConfigError, on all of them, for a package that is not installed."""
        modules = {name: load(name) for name in names}
        self.open: dict[str, Logger] = {}
        for name, module in modules.items() if primary else ():
            try:
                self.open[name] = module.build(workdir, config)
            except Stopped:
                raise
            except Exception as error:
                raise ConfigError(f"log.loggers: {name} does not start ({first_line(error)})") from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a step."""
        for name, logger in list(self.open.items()):
            with self.going_on(name):
                logger.scalars(step, values)

    def close(self) -> None:
        for name in list(self.open):
            with self.going_on(name):
                self.open.pop(name).close()

    @contextlib.contextmanager
    def going_on(self, name: str) -> Iterator[None]:
        """What goes wrong inside ends the logger, and nothing else."""
        try:
            yield
        except Stopped:
            raise
        except Exception as error:
            why = error.strerror if isinstance(error, OSError) else first_line(error)
            warnings.warn(f"log.loggers: {name} is not written any more: {why}", stacklevel=5)
            if failed := self.open.pop(name, None):
                with contextlib.suppress(Exception):
                    failed.close()


def load(name: str) -> Any:
    """The logger's module. Raises ConfigError for a package that is not installed."""
    try:
        return plugins.load("reporting.loggers", name)
    except ModuleNotFoundError as error:
        package = (error.name or name).partition(".")[0]
        raise ConfigError(f"log.loggers has {name!r}, which needs a package: pip install {package}") from None
