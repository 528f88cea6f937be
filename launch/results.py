"""Writes what runs reached, from the reports in their workdirs:

    python -m launch.results runs/quickstart runs/compare_text … [--out=configs/RESULTS.md]

Of each where it ran, its conclusion, a table of its variants, and pictures of quality against coverage, which --out
puts into the folder `results` beside the file. A config file may name published numbers that its own stand beside:
PUBLISHED = {"test/nll": "1.30 (Author et al., 2020)"}.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gentrain import files
from gentrain.errors import ConfigError, GentrainError
from launch import cli

MOST = 12  # numbers of a variant that are shown
HEAD = """# Results

Written by `python -m launch.results` from the runs' own reports. Numbers are those of the last step, on the split that
the config names: means over seeds and, after ±, half of their 95 % interval. The best are bold, where no other is tied
with them. What each number means: `python -m launch.list evaluators`. Seconds are those of a run, compiling and
evaluating too, on a machine that may have had other work.
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
        pictures = Path(out[-1]).parent / "results" if out else None
        text = HEAD + "".join(f"\n{line}\n" for workdir in workdirs for line in section(workdir, pictures))
    except GentrainError as error:
        cli.say(f"{type(error).__name__}: {error}")
        return error.exit_code
    if out:
        Path(out[-1]).write_text(text)
    else:
        print(text, end="")
    return 0


def section(workdir: Path, pictures: Path | None) -> Iterator[str]:
    """What is said of one workdir; its pictures are put into a folder. Raises ConfigError where it holds no finished
    run."""
    report = files.read_json(workdir / "report.json")
    if "frontiers" not in report:
        hint = "of a run or of a sweep; `python -m launch.report` writes it anew"
        raise ConfigError(f"{workdir} has no report.json of this version: expected the workdir {hint}")
    provenance = next(iter(report["runs"].values()))["provenance"]
    yield f"## {workdir.name}"
    packages = provenance.get("packages", {})
    where = f"{provenance.get('hardware', '?')}, jax {packages.get('jax', '?')}"
    yield f"{provenance.get('date', '?')}, commit {provenance.get('commit') or '?'}, {where}:"
    yield f"    {provenance.get('command', '?')}"
    yield " ".join(report["conclusion"])
    yield "\n".join(table(report, published_numbers(workdir.name)))
    if pictures:
        yield from planes(report, workdir.name, pictures)


def planes(report: Mapping[str, Any], name: str, folder: Path) -> Iterator[str]:
    """Pictures of quality against coverage, an SVG each."""
    from gentrain.reporting import page, plane  # imports JAX

    for shown, drawn in plane.pictures(report).items():
        file = folder / f"{name}-{shown.partition(' ')[0].replace('/', '-')}.svg"
        folder.mkdir(exist_ok=True)
        file.write_text(plane.standalone(drawn, page.web("report.css")))
        yield f"![{shown}]({folder.name}/{file.name})"


def table(report: Mapping[str, Any], published: Mapping[str, str]) -> Iterator[str]:
    """A row a variant, a column a number that is compared; with published ones 'here / published'."""
    from gentrain.reporting.comparison import floor_of
    from gentrain.reporting.conclusion import digits

    columns = [name for name, metric in report["metrics"].items() if metric["main"] or name in published][:MOST]
    heads = [f"{name} (here / published)" if name in published else name for name in columns]
    yield "| | " + " | ".join(heads) + " | seconds |"
    yield "|---" * (len(columns) + 2) + "|"
    for variant, entry in report["variants"].items():
        cells = [
            cell(report["metrics"][name], variant) + (f" / {published[name]}" if name in published else "")
            for name in columns
        ]
        seconds = f"{entry['cost']['wall']:,.0f}" if "wall" in entry["cost"] else "-"
        yield f"| {variant} | " + " | ".join(cells) + f" | {seconds} |"
    floors = {name: floor for name in columns if (floor := floor_of(report["metrics"][name])) is not None}
    if floors:
        yield (
            "| *real data* | " + " | ".join(digits(floors[name]) if name in floors else "" for name in columns) + " | |"
        )


def cell(metric: Mapping[str, Any], variant: str) -> str:
    """A variant's number by one metric."""
    from gentrain.reporting.conclusion import digits, spread

    value = metric["values"].get(variant)
    if value is None:
        return "-"
    around = spread(value)
    shown = digits(value["mean"], around) + (f" ± {digits(around, around)}" if around else "")
    best = metric["ranking"] and metric["ranking"]["best"] == variant
    return f"**{shown}**" if best else shown


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
