"""One page across the variants of a sweep: what each reached, which was best at what, and the figures beside theory."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gentrain import files, plugins
from gentrain.errors import ReportError, Stopped, first_line
from gentrain.reporting import page, plots, report
from gentrain.sums import Metric, declared

Values = dict[str, dict[str, float]]  # variant -> metric -> its last value


def compare(config: ConfigDict, workdir: Path, names: Sequence[str], failed: Mapping[str, str] | None = None) -> Path:
    """One page across the variants of a sweep: the figures of config.report, what each variant reached, which was best
    at what; the same over seeds, where there are several.

    names: the variants that have a report; failed: those that have none, and why. Best is said of variants of the same
    data only. Reads WORKDIR/<name>/report.json, config.json and metrics.jsonl; writes report.html, report.json and
    plots/ beside them. Raises ReportError where that goes wrong; all but the figures that went wrong is written.
    """
    failed = failed or {}
    with page.after_training(workdir):
        reports = {name: files.read_json(workdir / name / "report.json") for name in names}
        configs = {name: files.require_json(workdir / name / "config.json") for name in names}
        figures, broken = draw_figures(
            config, workdir, {name: {"config": configs[name], **reports[name]} for name in names}
        )
        metrics: dict[str, Metric] = {}
        for flat in configs.values():
            metrics |= report.evaluator_metrics(flat)
        measured = sorted({metric for variant in reports.values() for metric in variant["final"]})
        columns = [metric for metric in measured if shown_in_tables(metric, metrics)]
        compared = columns if same_data(configs.values()) else []
        final = {
            name: {column: variant["final"][column] for column in columns if column in variant["final"]}
            for name, variant in reports.items()
        }
        best = best_variants(final, compared, metrics)
        spread = over_seeds(final, configs)
        means = {group: {column: mean for column, (mean, _, _) in row.items()} for group, row in spread.items()}
        best_groups = best_variants(means, compared, metrics)
        curve_files = draw_curves(workdir, names, [column for column in best if not restates(column, metrics)])
        summary = {"variants": reports, "best": best, "over_seeds": spread, "figures": figures, "failed": failed}
        files.write_json(workdir / "report.json", summary)

        tables = last_values_table(final, columns, best)
        if spread:
            tables = over_seeds_table(spread, columns, best_groups) + tables
        winners = [f"{column}: {name}" for column, name in (best_groups or best).items()]
        missing = [f"{name}: {why}" for name, why in {**failed, **broken}.items()]
        body = (
            f"{page.pictures([picture_file(workdir, name) for name in figures])}"
            f"{f'<h2>Failed</h2>{page.bullets(missing)}' if missing else ''}"
            f"<h2>Best at</h2>{page.bullets(winners)}{tables}"
            f"<h2>Samples</h2>{page.samples(last_samples(workdir, names))}"
            f"<h2>Curves</h2>{page.pictures(curve_files)}"
        )
        written = page.write(workdir, f"{len(names)} variants{f', {len(failed)} failed' if failed else ''}", body)
    if broken:
        raise ReportError(f"{written} is without {'; '.join(f'{name} ({why})' for name, why in broken.items())}")
    return written


def picture_file(workdir: Path, figure: str) -> Path:
    return workdir / "plots" / f"{figure}.png"


def draw_figures(
    config: ConfigDict, workdir: Path, results: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """(figure -> its numbers, figure -> why it could not be drawn) of the figures of config.report."""
    (workdir / "plots").mkdir(exist_ok=True)
    numbers: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for figure in config.report.figures:
        try:
            numbers[figure] = plugins.load("reporting.figures", figure).draw(results, picture_file(workdir, figure))
        except Stopped:
            raise
        except Exception as error:  # a figure may need a variant that failed
            broken[figure] = first_line(error)
    return numbers, broken


def shown_in_tables(name: str, metrics: Mapping[str, Metric]) -> bool:
    """Whether tables show it: all that evaluators measure, but for levels and long lists without a better direction."""
    declaration = declared(name, metrics)
    if declaration is None or declaration[1].level:
        return False
    pattern, metric = declaration
    return metric.better is not None or "<" not in pattern


def restates(name: str, metrics: Mapping[str, Metric]) -> bool:
    """Whether it says in another unit what another metric says."""
    declaration = declared(name, metrics)
    return declaration is not None and declaration[1].restates


def same_data(configs: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all (flat) configs learn from the same data, prepared in the same way."""
    sections = [{key: value for key, value in flat.items() if key.split(".")[0] == "data"} for flat in configs]
    return all(section == sections[0] for section in sections)


def best_variants(values: Values, columns: Sequence[str], metrics: Mapping[str, Metric]) -> dict[str, str]:
    """{column: the variant that is best at it}, for the columns that have a better direction and several variants to
    choose from."""
    best = {}
    for column in columns:
        variants = [name for name in values if column in values[name]]
        direction = report.better_direction(column, metrics)
        if direction and len(variants) > 1:
            best[column] = report.CHOOSE[direction](variants, key=lambda name: values[name][column])
    return best


def over_seeds(values: Values, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """{group: {column: [mean, standard deviation (n - 1), n]}} of the variants that differ in their seed only.

    A group is named by what its variants' names share, 'all' if that is nothing.
    """
    groups: dict[str, list[str]] = {}
    for name, config in configs.items():
        same = {key: value for key, value in config.items() if key not in ("seed", "init_from")}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(name)
    spread: dict[str, dict[str, list[float]]] = {}
    for members in groups.values():
        shared = set.intersection(*(set(name.split(",")) for name in members))
        group = ",".join(part for part in members[0].split(",") if part in shared) or "all"
        for column in sorted({column for name in members for column in values[name]}):
            seeds = [values[name][column] for name in members if column in values[name]]
            if len(seeds) > 1:
                row = spread.setdefault(group, {})
                row[column] = [statistics.fmean(seeds), statistics.stdev(seeds), len(seeds)]
    return spread


def draw_curves(workdir: Path, names: Sequence[str], columns: Sequence[str]) -> list[Path]:
    """A plot for each column, of the variants that measured it more than twice."""
    records = {name: files.read_jsonl(workdir / name / "metrics.jsonl") for name in names if columns}
    paths = []
    for column in columns:
        curves = {name: report.curve(lines, column) for name, lines in records.items()}
        long_curves = {name: curve for name, curve in curves.items() if len(curve[0]) > 2}
        if long_curves:
            paths.append(workdir / "plots" / f"{report.file_stem(column)}.png")
            plots.curves(long_curves, paths[-1], title=column, unit="")
    return paths


def last_samples(workdir: Path, names: Sequence[str]) -> dict[str, Path]:
    """The newest file of samples of each variant that has any."""
    paths = {name: report.sample_files(workdir / name / "samples") for name in names}
    return {name: samples[-1] for name, samples in paths.items() if samples}


def last_values_table(final: Values, columns: Sequence[str], best: Mapping[str, str]) -> str:
    """What each variant reached."""
    rows = {name: {column: page.number(value) for column, value in row.items()} for name, row in final.items()}
    return f"<h2>Last values</h2>{page.variants_table(rows, columns, best, page.link)}"


def over_seeds_table(
    spread: Mapping[str, Mapping[str, Sequence[float]]], columns: Sequence[str], best: Mapping[str, str]
) -> str:
    """What each group of variants reached, over its seeds."""
    rows = {
        group: {
            column: f"{page.number(mean)} ± {page.number(deviation)} ({seeds})"
            for column, (mean, deviation, seeds) in row.items()
        }
        for group, row in spread.items()
    }
    head = "<h2>Over seeds</h2><p>mean ± standard deviation (seeds)</p>"
    return head + page.variants_table(rows, columns, best)
