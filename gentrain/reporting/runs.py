"""Runs as their workdirs tell of them, and variants: the runs whose configs differ in nothing but the seed."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gentrain import files, plugins, update
from gentrain.options.tree import plugin_options
from gentrain.reporting import alarms, meter
from gentrain.sums import Metric, declared

Record = dict[str, Any]  # a step of metrics.jsonl: its step and time, and what was measured there
Curve = tuple[list[int], list[float]]  # steps, values
CHOOSE = {"lower": min, "higher": max}  # how the best of several values is chosen, by a metric's better direction
# How a run is watched and kept, and where it began: what does not set variants apart unless nothing else does.
WATCHED = ("log", "checkpoint", "report", "evaluate", "sample", "sweep", "init_from")
HOW = ("data.prefetch", "training.replica_check_steps", "training.stuck_seconds")
# What of the data may differ between runs whose numbers compare.
FEEDING = ("data.batch_size", "data.prefetch", "data.skip_batches")
NAMES = ("objective.name", "model.name", "data.name")  # a variant is called by these first, and by their values alone
WORDS = {"objective.real_prior": "π"}  # what an option is called, where not by the last part of its name


def curve(records: Iterable[Record], name: str) -> Curve:
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


def summarise(records: Sequence[Record], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The last value of everything measured, and the best of all in `metrics` that has a better direction."""
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


@dataclass(frozen=True)
class Run:
    """What a workdir holds of a run, finished or not. config: flat, as config.json has it."""

    name: str
    folder: Path
    config: dict[str, Any]
    records: list[Record]
    provenance: dict[str, Any]
    goodput: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    def option(self, key: str) -> Any:
        """None for an option that the run's version of the program does not have."""
        return dict.get(self.config, key)

    @cached_property
    def evaluator_metrics(self) -> dict[str, Metric]:
        return evaluator_metrics(self.config)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        return all_metrics(self.config)

    @cached_property
    def summary(self) -> dict[str, Any]:
        return summarise(self.records, self.evaluator_metrics)

    @cached_property
    def evaluation(self) -> Record:
        """The numbers of the last evaluation, those that were not finite as None; {} before the first."""
        for record in reversed(self.records):
            numbers = {name: value for name, value in record.items() if declared(name, self.evaluator_metrics)}
            if numbers:
                return {"step": record["step"], **numbers}
        return {}

    @property
    def step(self) -> int:
        return self.records[-1]["step"] if self.records else 0

    @cached_property
    def cost(self) -> dict[str, float]:
        """What the run took: steps, examples, seconds, device-seconds of training, and how fast it went."""
        seconds = self.goodput.get("seconds", {})
        examples = self.step * self.config["data.batch_size"]
        train, wall = seconds.get("train", math.nan), self.goodput.get("wall", math.nan)
        _, rates = curve(self.records, "tokens_per_second")
        named = {"steps": self.step, "examples": examples, "wall": wall, "training": train}
        named["device_seconds"] = train * self.devices
        named["examples_per_second"] = examples / train if train else math.nan
        if plugin_options("models", self.config["model.name"]).makes == "sequences":
            named["tokens_per_second"] = sorted(rates)[len(rates) // 2] if rates else math.nan
        return {name: value for name, value in named.items() if math.isfinite(value)}

    @property
    def devices(self) -> int:
        """How many devices, which provenance.json has as '8 x NVIDIA H200, …'."""
        count = str(self.provenance.get("hardware", "")).partition(" x ")[0]
        return int(count) if count.isdecimal() else 1

    @cached_property
    def alarms(self) -> dict[str, list[int]]:
        """Which alarms rang, and at which steps of the log."""
        rang: dict[str, list[int]] = {}
        for record in self.records:
            for name, value in record.items():
                if name.startswith("health/") and value == 1:
                    rang.setdefault(name.removeprefix("health/"), []).append(record["step"])
        return rang

    @cached_property
    def samples(self) -> list[Path]:
        return sample_files(self.folder / "samples")


def sample_files(folder: Path) -> list[Path]:
    """What a run wrote into its folder of samples, in order of step; files of others are left out."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path.suffix in (".txt", ".png") and path.stem.isdecimal())


def read(name: str, folder: Path) -> Run:
    """Raises CheckpointError where config.json is damaged."""
    return Run(
        name,
        folder,
        files.require_json(folder / "config.json"),
        files.read_jsonl(folder / "metrics.jsonl"),
        files.read_json(folder / "provenance.json"),
        files.read_json(folder / "goodput.json"),
    )


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The options in which configs differ, with each run's value."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    values = {key: [run.option(key) for run in runs] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def same_data(runs: Sequence[Run]) -> bool:
    """Whether all learn from the same data, prepared in the same way."""
    return not any(key.split(".")[0] == "data" and key not in FEEDING for key in differing(runs))


def variants(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the variant that they are seeds of, which is called by what sets it apart: 'adversarial, π = 0.5'."""
    differs = differing(runs)
    watched = {key for key in differs if key.split(".")[0] in WATCHED or key in HOW}
    tries = [differs.keys() - {"seed"} - watched, differs.keys() - {"seed"}]
    groups: list[list[Run]] = [[run] for run in runs]
    for keys in tries:
        found = grouped(runs, sorted(keys))
        if all(len({run.seed for run in group}) == len(group) for group in found):
            groups = found
            break
    labels = call([group[0] for group in groups], sorted(differs.keys() - {"seed"}))
    return dict(zip(labels, groups, strict=True))


def grouped(runs: Sequence[Run], keys: Sequence[str]) -> list[list[Run]]:
    """Runs that have the same values of some options, in the order in which they come."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps([run.option(key) for key in keys]), []).append(run)
    return list(groups.values())


def call(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """A short name for each run. What tells most of them apart comes first, and of those that it does not tell apart
    the next option is said. Runs that no option tells apart are called by their folder."""
    if len(runs) == 1:
        return [words(runs[0].config["objective.name"])]
    names: dict[int, list[str]] = {index: [] for index in range(len(runs))}
    ordered = [key for key in NAMES if key in keys] + [key for key in keys if key not in NAMES]

    def split(indices: list[int], left: list[str]) -> None:
        if len(indices) < 2:
            return
        if not left:
            for index in indices:
                names[index].append(runs[index].name)
            return
        groups: dict[str, list[int]] = {}
        for index in indices:
            groups.setdefault(phrase(left[0], runs[index].option(left[0]), keys), []).append(index)
        for words, members in groups.items():
            if len(groups) > 1:
                for index in members:
                    names[index].append(words)
            split(members, left[1:])

    split(list(names), ordered)
    return [", ".join(parts) for parts in names.values()]


def phrase(key: str, value: Any, keys: Sequence[str]) -> str:
    """An option and its value, as a person says them: 'likelihood', 'π = 0.5', 'critic width = 64'."""
    if key in NAMES:
        return words(value)
    last = key.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in keys) == 1
    return f"{WORDS.get(key, spaced(last if alone else key))} = {words(value)}"


def words(value: Any) -> str:
    """A value of an option, as a person says it."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(map(words, value)) or "none"
    return Path(value).name if "/" in str(value) else str(value).replace("_", " ")


def spaced(text: str) -> str:
    return text.replace("_", " ").replace(".", " ")
