"""One page on a run: what it reached, next to what to compare it with; curves; samples; every setting."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gentrain import files, plugins, update
from gentrain.reporting import alarms, meter, page, plots
from gentrain.sums import Metric, declared

Record = dict[str, Any]  # a step of metrics.jsonl: its step and time, and what was measured there
CHOOSE = {"lower": min, "higher": max}  # how the best of several values is chosen, by a metric's better direction


def curve(records: Sequence[Record], name: str) -> plots.Curve:
    """A metric over the steps at which it was measured."""
    points = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def evaluator_metrics(config: Mapping[str, Any]) -> dict[str, Metric]:
    """Every metric that the evaluators of a run of this (flat) config declare."""
    metrics: dict[str, Metric] = {}
    for name in config["evaluate.evaluators"]:
        metrics |= getattr(plugins.load("evaluators", name), "METRICS", {})
    return metrics


def all_metrics(config: Mapping[str, Any]) -> dict[str, Metric]:
    """Every metric that a run may report: those of its evaluators, its objective and the program around them."""
    objective = plugins.load("objectives", config["objective.name"])
    training = getattr(objective, "METRICS", {}) | update.METRICS | meter.METRICS | alarms.METRICS
    return training | evaluator_metrics(config)


def better_direction(name: str, metrics: Mapping[str, Metric]) -> str | None:
    """'lower' or 'higher' where the metric is declared to have a better direction, else None."""
    declaration = declared(name, metrics)
    return declaration[1].better if declaration else None


def summary_line(config: Mapping[str, Any], numbers: Mapping[str, float]) -> str:
    """An evaluation in a line: the evaluators' verdicts, or the first numbers that have a better direction.

    config: the resolved one.
    """
    if said := verdict(numbers, list(config["evaluate.evaluators"])):
        return said
    metrics = evaluator_metrics(config)
    directed = [name for name in numbers if better_direction(name, metrics)]
    return ", ".join(f"{name} {numbers[name]:.4g}" for name in (directed or list(numbers))[:6])


def verdict(values: Mapping[str, Any], evaluators: Sequence[str]) -> str:
    """What was reached on held-out data, as the evaluators say it; empty where none says anything."""
    modules = [plugins.load("evaluators", name) for name in evaluators]
    verdicts = [module.verdict(values) for module in modules if hasattr(module, "verdict")]
    return "; ".join(text for text in verdicts if text)


def summarise(records: Sequence[Record], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """report.json: the last value of everything measured, and the best of all in `metrics` that has a better
    direction."""
    final: dict[str, Any] = {}
    for record in records:
        final |= {name: value for name, value in record.items() if value is not None}
    best: dict[str, Any] = {}
    for name in final:
        if direction := better_direction(name, metrics):
            steps, values = curve(records, name)
            value = CHOOSE[direction](values)
            best[name] = {"value": value, "step": steps[values.index(value)]}
    return {"final": final, "best": best}


def draw(records: Sequence[Record], folder: Path, metrics: Mapping[str, Metric]) -> list[Path]:
    """Plots, a PNG each: one for each unit of what has a better direction, with the levels to compare it with, then one
    for each quantity of players and each unit of the rest.

    Metrics of which there are many, as 'exact/njs@<pi>', and those that restate another one are not drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({name for record in records for name in record} - {"step", "time"})
    groups: dict[tuple[bool, str], dict[str, plots.Curve]] = {}  # (no better direction, title) -> curves
    units: dict[tuple[bool, str], str] = {}
    levels: dict[str, dict[str, float]] = {}  # unit -> last values
    for name in names:
        declaration, line = declared(name, metrics), curve(records, name)
        if declaration is None or not line[0]:
            continue
        pattern, metric = declaration
        one_of_many = "<" in pattern and not pattern.startswith("<")
        if metric.level:
            levels.setdefault(metric.unit, {})[name] = line[1][-1]
        elif not metric.restates and not one_of_many:
            title = pattern.partition("/")[2] if pattern.startswith("<player>") else metric.unit
            group = (metric.better is None, title)
            groups.setdefault(group, {})[name] = line
            units.setdefault(group, metric.unit)
    paths = []
    for group in sorted(groups):
        neutral, title = group
        shares_title = neutral and (False, title) in groups
        path = folder / f"{file_stem(title)}{'_neutral' if shares_title else ''}.png"
        beside = {} if neutral else levels.get(units[group])
        plots.curves(groups[group], path, title=title, unit=units[group], levels=beside)
        paths.append(path)
    return paths


def file_stem(title: str) -> str:
    """A title or a metric's name as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "_", title.lower())


def sample_files(folder: Path) -> list[Path]:
    """What a run wrote into its folder of samples, in order of step; files of others are left out."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path.suffix in (".txt", ".png") and path.stem.isdecimal())


def first_middle_last(folder: Path) -> dict[str, Path]:
    """Three of the files of samples, by their step."""
    paths = sample_files(folder)
    chosen = sorted({0, len(paths) // 2, len(paths) - 1}) if paths else []
    return {f"step {int(paths[index].stem):,}": paths[index] for index in chosen}


def is_written(workdir: Path) -> bool:
    """Whether what `write` writes is there, undamaged."""
    return "final" in files.read_json(workdir / "report.json") and (workdir / "report.html").exists()


def write(workdir: Path) -> Path:
    """Reads a workdir; writes plots/*.png, report.json and report.html there, and returns the last. Raises ReportError
    where that goes wrong."""
    with page.after_training(workdir):
        records = files.read_jsonl(workdir / "metrics.jsonl")
        config = files.require_json(workdir / "config.json")
        goodput = files.read_json(workdir / "goodput.json")
        summary = summarise(records, evaluator_metrics(config))
        files.write_json(workdir / "report.json", summary)
        last_values = {name: value for name, value in sorted(summary["final"].items()) if name != "time"}
        plot_files = draw(records, workdir / "plots", all_metrics(config))
        seconds = {f"seconds of {kind}": value for kind, value in goodput.get("seconds", {}).items() if value}
        body = (
            f"<h2>Samples</h2>{page.samples(first_middle_last(workdir / 'samples'))}"
            f"<h2>Curves</h2>{page.pictures(plot_files)}"
            f"<h2>Last values</h2>{page.table(last_values)}"
            f"<h2>Time</h2>{page.table(seconds)}"
            f"<h2>Config</h2><details><summary>every key</summary>{page.table(config)}</details>"
        )
        return page.write(workdir, verdict(summary["final"], config["evaluate.evaluators"]), body)
