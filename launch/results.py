"""Writes a table of what runs reached, from what they left in their workdirs:

    python -m launch.results runs/quickstart runs/digits_likelihood … [--out=configs/RESULTS.md]

A row is a run or a variant of a sweep, with what its evaluators measured at the last step and where it ran. A config
file may name published numbers that its own stand beside: PUBLISHED = {"test/nll": "1.30 (Author et al., 2020)"}.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gentrain import files
from gentrain.errors import ConfigError, GentrainError
from gentrain.sums import Metric, declared
from launch import cli

MOST = 8  # numbers of a run that are shown
HEAD = """# Results

Written by `python -m launch.results` from the runs' own files. Numbers are those of the last step, on the split that
the config names. What each number means: `python -m launch.list evaluators`. Seconds are those of a whole run, on a
machine that may have had other work.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command as a function; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if cli.asks_for_help(argv) or len(argv) == 1:
        print(__doc__)
        return 0
    out = [argument.partition("=")[2] for argument in argv[1:] if argument.startswith("--out=")]
    workdirs = [Path(argument) for argument in argv[1:] if not argument.startswith("--")]
    try:
        text = HEAD + "".join(f"\n{line}\n" for workdir in workdirs for line in section(workdir))
    except GentrainError as error:
        cli.say(f"{type(error).__name__}: {error}")
        return error.exit_code
    if out:
        Path(out[-1]).write_text(text)
    else:
        print(text, end="")
    return 0


def section(workdir: Path) -> Iterator[str]:
    """What is said of one workdir. Raises ConfigError where it holds no finished run."""
    report = files.read_json(workdir / "report.json")
    if not report:
        raise ConfigError(f"{workdir} has no report.json: expected the workdir of a run or of a sweep")
    runs = {name: workdir / run["folder"] for name, run in report["runs"].items()}
    provenance = files.read_json(next(iter(runs.values())) / "provenance.json")
    published = published_numbers(workdir.name)
    yield f"## {workdir.name}"
    packages = provenance.get("packages", {})
    where = f"{provenance.get('hardware', '?')}, jax {packages.get('jax', '?')}"
    yield f"{provenance.get('date', '?')}, commit {provenance.get('commit') or '?'}, {where}:"
    yield f"    {provenance.get('command', '?')}"
    yield "\n".join(table(runs, published))


def table(runs: dict[str, Path], published: dict[str, str]) -> Iterator[str]:
    """A row a run, a column a number that has a better direction; with published ones 'here / published'."""
    from gentrain.reporting import report

    final = {name: files.read_json(path / "report.json")["final"] for name, path in runs.items()}
    metrics: dict[str, Metric] = {}
    seconds = {}
    for name, path in runs.items():
        metrics |= report.evaluator_metrics(files.require_json(path / "config.json"))
        spent = files.read_json(path / "goodput.json")
        seconds[name] = spent.get("wall", float("nan"))
    measured = list(dict.fromkeys(metric for values in final.values() for metric in values))
    columns = [metric for metric in measured if metric in published]
    columns += [metric for metric in measured if metric not in published and is_shown(metric, metrics)]
    columns = columns[:MOST]
    yield "| run | " + " | ".join(f"{c} (here / published)" if c in published else c for c in columns) + " | seconds |"
    yield "|---" * (len(columns) + 2) + "|"
    for name, values in final.items():
        cells = [number(values.get(c)) + (f" / {published[c]}" if c in published else "") for c in columns]
        yield f"| {name} | " + " | ".join(cells) + f" | {seconds[name]:.0f} |"


def is_shown(name: str, metrics: dict[str, Metric]) -> bool:
    """Whether a number has a better direction and says what no other says in another unit."""
    declaration = declared(name, metrics)
    return declaration is not None and declaration[1].better is not None and not declaration[1].restates


def number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | int) else "-"


def published_numbers(workdir_name: str) -> dict[str, str]:
    """PUBLISHED of the shipped config that a workdir is named after; {} where there is none."""
    name = workdir_name.partition("-")[0]
    for file in cli.config_files():
        if file.stem == name:
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PUBLISHED":
                    return ast.literal_eval(node.value)
    return {}


if __name__ == "__main__":
    sys.exit(main())
