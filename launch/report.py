"""Compares runs, finished or not, made together or apart:

    python -m launch.report RUN [RUN …] [--out=DIR]

RUN is a workdir, of a run or of a sweep, whose variants are then meant. Runs that differ in their seed only are told as
one variant, with intervals. report.html and report.json are written into DIR: where it is not given, into the folder of
the only RUN, or into ./report where there are several.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from gentrain import console, files
from gentrain.errors import ConfigError, GentrainError
from launch import cli


def main(argv: Sequence[str] | None = None) -> int:
    """The command as a function; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if cli.asks_for_help(argv) or len(argv) == 1:
        print(__doc__)
        return 0
    try:
        folders, out = parse(argv[1:])
        found = named([run for folder in folders for run in runs_in(folder)])
        from gentrain.reporting import report  # imports JAX

        of_sweep = len(folders) == 1 and len(found) > 1
        figures = files.require_json(next(iter(found.values())) / "config.json")["report.figures"] if of_sweep else ()
        page = report.compare(found, out, figures=figures)
        conclusion = files.read_json(out / "report.json")["conclusion"]
        console.say("\n".join([*conclusion, str(page)]))
    except GentrainError as error:
        cli.say(f"{type(error).__name__}: {error}")
        return error.exit_code
    return 0


def parse(arguments: Sequence[str]) -> tuple[list[Path], Path]:
    """The workdirs, and where the report goes. Raises ConfigError for another option."""
    left, folders, out = list(arguments), [], None
    while left:
        argument = left.pop(0)
        if argument.startswith("--out="):
            out = Path(argument.removeprefix("--out="))
        elif argument == "--out" and left:
            out = Path(left.pop(0))
        elif argument.startswith("-"):
            raise ConfigError(f"{argument}: expected workdirs and --out=DIR")
        else:
            folders.append(Path(argument))
    if not folders:
        raise ConfigError("no workdir is named: expected python -m launch.report RUN [RUN …] [--out=DIR]")
    return folders, out or (folders[0] if len(folders) == 1 else Path("report"))


def runs_in(folder: Path) -> list[Path]:
    """The folder, where it is a run's, or those of the runs in it, in the order in which they began. Raises ConfigError
    where there is none."""
    if (folder / "config.json").exists():
        return [folder]
    found = sorted(folder.glob("*/config.json"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise ConfigError(f"{folder} is no workdir: neither it nor a folder in it has a config.json")
    return [path.parent for path in found]


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """Each run by the end of its path that no other one has."""
    paths = list(dict.fromkeys(folder.resolve() for folder in folders))
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, paths, strict=True))


if __name__ == "__main__":
    sys.exit(main())
