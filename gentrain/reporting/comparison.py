"""What a report says, as numbers: report.json, of one run or of many. The page draws nothing that is not in it."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gentrain.reporting import runs, verdict
from gentrain.reporting.runs import Run
from gentrain.sums import Metric, declared

Content = dict[str, Any]
Groups = Mapping[str, Sequence[Run]]  # variant -> its runs, a seed each

COMPANIONS = ("_low", "_high", "_se", "_floor")  # what stands beside a metric, and is shown with it
OF_MANY = 12  # metrics of one declaration, as exact/njs@<pi>, above which their curves are not drawn
POINTS = 200  # of a curve of training; a longer one is drawn as means over as many stretches
# (quality, coverage): how likely samples are among the data, and the data among samples.
PAIRS = (
    *(("reverse_kl", "forward_kl"), ("precision", "recall"), ("density", "coverage"), ("quality", "captured")),
    *(("forward_perplexity", "reverse_perplexity"), ("bleu_4", "self_bleu_4")),
)
# The same of pairs that are measured at several settings of a model, as temperatures, and which of each are better.
FRONTIERS = {("bleu_4", "self_bleu_4"): ("higher", "lower"), ("nll_oracle", "nll_test"): ("lower", "lower")}
FEW = 5  # metrics of one declaration that are each worth a column


def content(found: Sequence[Run], failed: Mapping[str, str], out: Path) -> Content:
    """report.json: the numbers of each run and of each variant, who is best, what it cost, and every curve.

    failed: runs that have no number, and why; out: the folder of the report.
    """
    groups = runs.variants(found)
    metrics: dict[str, Metric] = {}
    for run in found:
        metrics |= run.evaluator_metrics
    names = list(dict.fromkeys(name for run in found for name in run.evaluation))
    shown = [name for name in names if name != "step" and not is_companion(name, names)]
    ranked = runs.same_data(found)
    differs, main = runs.differing(found), main_metrics(shown, metrics)
    entries = {name: {"main": name in main, **metric_entry(name, groups, metrics, ranked)} for name in shown}
    return {
        "runs": {run.name: run_entry(run, variant, out) for variant, group in groups.items() for run in group},
        "variants": {variant: variant_entry(group) for variant, group in groups.items()},
        "metrics": entries,
        "same_data": ranked,
        "budgets": budgets(groups),
        "differs": {key: {run.name: run.option(key) for run in found} for key in differs},
        "pairs": pairs(shown),
        "frontiers": frontiers(shown, metrics),
        "curves": curves(groups, metrics, shown),
        "failed": dict(failed),
    }


def is_companion(name: str, names: Sequence[str]) -> bool:
    """Whether it is the interval or the floor of another number."""
    return any(name.endswith(ending) and name.removesuffix(ending) in names for ending in COMPANIONS)


def main_metrics(names: Sequence[str], metrics: Mapping[str, Metric]) -> set[str]:
    """Those that have a better direction and say what no other says: not in another unit, nor by another order, as
    jsd_3 beside jsd_2, nor as one point of a long list. The least order above 1 stands for all: few samples share any
    longer n-gram with real text."""
    found = {name: declaration for name in names if (declaration := declared(name, metrics))}
    patterns = [pattern for pattern, _ in found.values()]
    families: dict[str, list[tuple[bool, int, str]]] = {}
    for name, (pattern, metric) in found.items():
        stem, _, order = name.rpartition("_")
        number = int(order) if order.isdecimal() else 0
        if metric.better and not metric.restates and not metric.level and patterns.count(pattern) <= FEW:
            families.setdefault(stem if number else name, []).append((number == 1, number, name))
    return {min(family)[2] for family in families.values()}


def run_entry(run: Run, variant: str, out: Path) -> dict[str, Any]:
    """One run: what it reached, when it was best, what it took, which alarms rang and where it is from."""
    folder = Path(os.path.relpath(run.folder, out)).as_posix()
    entry = {"folder": folder, "variant": variant, "seed": run.seed, **run.summary, "cost": run.cost}
    evaluated = run.evaluation["step"] if run.evaluation else None
    entry |= {"evaluated": evaluated, "alarms": run.alarms, "provenance": run.provenance}
    return entry | {"seconds": run.goodput.get("seconds", {})}


def variant_entry(group: Sequence[Run]) -> dict[str, Any]:
    """One variant: its runs, and their mean cost."""
    kinds = dict.fromkeys(kind for run in group for kind in run.cost)
    costs = {kind: [run.cost[kind] for run in group if kind in run.cost] for kind in kinds}
    cost = {kind: sum(values) / len(values) for kind, values in costs.items()}
    return {"runs": [run.name for run in group], "seeds": [run.seed for run in group], "cost": cost}


def metric_entry(name: str, groups: Groups, metrics: Mapping[str, Metric], ranked: bool) -> dict[str, Any]:
    """One metric: its declaration, each variant's value at the last evaluation, and what may be said of the best."""
    declaration = declared(name, metrics)
    assert declaration is not None  # an evaluation has nothing else
    metric = declaration[1]
    values = {variant: over_seeds(name, group) for variant, group in groups.items()}
    seeds = {variant: {run.seed: number(run.evaluation, name) for run in group} for variant, group in groups.items()}
    ranking = verdict.rank(seeds, metric.better) if ranked and metric.better else None
    return {
        "unit": telling_unit(name, metric, groups, metrics),
        "better": metric.better,
        "meaning": metric.meaning,
        "level": metric.level,
        "values": {variant: value for variant, value in values.items() if value},
        "ranking": ranking and ranking_entry(ranking),
    }


def ranking_entry(ranking: verdict.Ranking) -> dict[str, Any]:
    """As JSON holds it: intervals by name too."""
    differences = {name: difference._asdict() for name, difference in ranking.differences.items()}
    return ranking._asdict() | {"differences": differences}


def number(record: Mapping[str, Any], name: str) -> float:
    """nan for what is not there, or was not finite."""
    value = record.get(name)
    return math.nan if value is None else float(value)


def over_seeds(name: str, group: Sequence[Run]) -> dict[str, Any]:
    """Mean and interval over seeds; of one seed the evaluator's own interval within the run, where it gives one; and
    the floor, which real data would have. {} where nothing finite was measured."""
    values = [value for run in group if math.isfinite(value := number(run.evaluation, name))]
    if not values:
        return {}
    entry: dict[str, Any] = verdict.interval(values)._asdict() | {"within": None}
    if len(values) == 1:
        entry["within"] = next((found for run in group if (found := within_run(run, name))), None)
    floors = [value for run in group if math.isfinite(value := number(run.evaluation, f"{name}_floor"))]
    return entry | ({"floor": sum(floors) / len(floors)} if floors else {})


def within_run(run: Run, name: str) -> list[float] | None:
    """The interval that an evaluator gives of its own number: over samples, not over seeds."""
    low, high, error = (number(run.evaluation, f"{name}{ending}") for ending in ("_low", "_high", "_se"))
    if math.isfinite(error):
        middle = number(run.evaluation, name)
        low, high = middle - 1.96 * error, middle + 1.96 * error
    return [low, high] if math.isfinite(low) and math.isfinite(high) else None


def floor_of(entry: Mapping[str, Any]) -> float | None:
    """What real data have of a metric, by its entry: the mean over variants; None where that is not measured."""
    floors = [value["floor"] for value in entry["values"].values() if "floor" in value]
    return sum(floors) / len(floors) if floors else None


def telling_unit(name: str, metric: Metric, groups: Groups, metrics: Mapping[str, Metric]) -> str:
    """The unit of a metric, or that of one which restates it and is the same number: where a token is a character,
    nats/token are nats/char."""
    evaluations = [run.evaluation for group in groups.values() for run in group if run.evaluation]
    for other in dict.fromkeys(key for record in evaluations for key in record):
        declaration = declared(other, metrics)
        if declaration and declaration[1].restates and other.partition("/")[0] == name.partition("/")[0]:
            same = all(number(record, other) == number(record, name) for record in evaluations)
            if same and not metric.restates and declaration[1].better == metric.better:
                return declaration[1].unit
    return metric.unit


def budgets(groups: Groups) -> dict[str, Any]:
    """Whether variants had equal steps, examples and device-seconds of training, by their means over seeds."""
    entries = {variant: variant_entry(group)["cost"] for variant, group in groups.items()}
    kinds = ("steps", "examples", "device_seconds")
    found = {
        kind: verdict.budget({name: cost[kind] for name, cost in entries.items() if kind in cost}) for kind in kinds
    }
    return {kind: budget._asdict() for kind, budget in found.items() if budget}


def pairs(names: Sequence[str]) -> list[dict[str, str]]:
    """The pairs of a quality and a coverage that an evaluator gives."""
    found = []
    for prefix in dict.fromkeys(name.rpartition("/")[0] for name in names):
        for quality, coverage in PAIRS:
            if f"{prefix}/{quality}" in names and f"{prefix}/{coverage}" in names:
                found.append({"quality": f"{prefix}/{quality}", "coverage": f"{prefix}/{coverage}"})
    return found


def frontiers(names: Sequence[str], metrics: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """The pairs that are measured at several settings: for each kind of setting, as temperature, the names of quality
    and coverage by setting, in order; and the bound on coverage under which qualities are compared, if there is one."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        stem, _, setting = name.rpartition("@")
        prefix, _, quality = stem.rpartition("/")
        for (one, other), better in FRONTIERS.items():
            if quality != one or f"{prefix}/{other}@{setting}" not in names:
                continue
            (pattern, _), bound = declared(name, metrics) or (name, None), f"{prefix}/{other}_bound"
            before, _, kind = pattern.rpartition("@")[2].rstrip(">").partition("<")
            entry: dict[str, Any] = {
                "quality": stem,
                "coverage": f"{prefix}/{other}",
                "better": list(better),
                "curves": {},
            }
            entry["bound"] = bound if bound in names else None
            curve = found.setdefault(stem, entry)["curves"].setdefault(kind, [])
            curve.append([float(setting.removeprefix(before)), name, f"{prefix}/{other}@{setting}"])
    for entry in found.values():
        entry["curves"] = {kind: sorted(points) for kind, points in entry["curves"].items()}
    return list(found.values())


def curves(groups: Groups, metrics: Mapping[str, Metric], shown: Sequence[str]) -> dict[str, Any]:
    """Every curve: those of evaluators over their evaluations, then those of training.

    A line is the mean over a variant's seeds, with the least and the most of them.
    """
    every: dict[str, Metric] = {}
    for group in groups.values():
        for run in group:
            every |= run.metrics
    measured = dict.fromkeys(
        name for group in groups.values() for run in group for line in run.records for name in line
    )
    patterns = [found[0] for name in measured if (found := declared(name, every))]
    drawn: dict[str, Any] = {}
    for name in [*shown, *(name for name in measured if not declared(name, metrics))]:
        declaration = declared(name, every)
        if declaration is None or declaration[1].level or name.startswith("health/"):
            continue
        pattern, metric = declaration
        lines = {variant: line for variant, group in groups.items() if (line := mean_line(name, group))}
        if patterns.count(pattern) > OF_MANY or all(len(line["steps"]) < 2 for line in lines.values()):
            continue
        evaluated = name in shown
        unit = telling_unit(name, metric, groups, metrics) if evaluated else metric.unit
        described = {"unit": unit, "better": metric.better, "meaning": metric.meaning, "evaluated": evaluated}
        levels = levels_of(name, metric, groups, every) if evaluated else {}
        drawn[name] = {**described, "lines": lines, "levels": levels, "window": window(lines, levels)}
    return drawn


def mean_line(name: str, group: Sequence[Run]) -> dict[str, Any]:
    """Mean, least and most over seeds at each step, in POINTS stretches where there are more steps than twice that."""
    by_step: dict[int, list[float]] = {}
    for run in group:
        steps, values = runs.curve(run.records, name)
        stretch = math.ceil(len(steps) / POINTS) if len(steps) > 2 * POINTS else 1
        for first in range(0, len(steps), stretch):
            part = values[first : first + stretch]
            by_step.setdefault(steps[min(first + stretch, len(steps)) - 1], []).append(sum(part) / len(part))
    if not by_step:
        return {}
    rows = [(step, by_step[step]) for step in sorted(by_step)]
    line = {"steps": [step for step, _ in rows], "mean": [rounded(sum(row) / len(row)) for _, row in rows]}
    if len(group) > 1:
        line |= {"low": [rounded(min(row)) for _, row in rows], "high": [rounded(max(row)) for _, row in rows]}
    return line


def rounded(value: float) -> float:
    """Six digits: more than a picture shows."""
    return float(f"{value:.6g}")


def levels_of(name: str, metric: Metric, groups: Groups, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Levels that a curve is compared with: the metric's own floor; what is declared as a level in its unit, by its own
    evaluator or, for a number of a split of the data, by any."""
    evaluations = [run.evaluation for group in groups.values() for run in group]
    found: dict[str, list[float]] = {}
    for record in evaluations:
        for other in record:
            declaration = declared(other, metrics)
            if declaration is None or not math.isfinite(value := number(record, other)):
                continue
            prefix = name.partition("/")[0]
            near = prefix in (other.partition("/")[0], "train", "valid", "test")
            floor = other.endswith("_floor")
            if other == f"{name}_floor" or (
                declaration[1].level and not floor and near and declaration[1].unit == metric.unit
            ):
                found.setdefault(other, []).append(value)
    return {other: sum(values) / len(values) for other, values in found.items()}


def window(lines: Mapping[str, Mapping[str, Sequence[float]]], levels: Mapping[str, float]) -> list[float] | None:
    """The range of values to look at where the first tenth of the steps takes more than half of the picture: that of
    the rest. None: all of it."""
    last = max(line["steps"][-1] for line in lines.values())
    every, late = list(levels.values()), list(levels.values())
    for line in lines.values():
        for ends in ("mean", "low", "high"):
            values = line.get(ends, [])
            every += values
            late += [value for step, value in zip(line["steps"], values, strict=False) if step > last / 10]
    seen = max(late) - min(late) if late else 0.0
    return [min(late), max(late)] if 0 < 2 * seen < max(every) - min(every) else None
