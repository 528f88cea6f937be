"""One page on a run: what it reached, next to what to compare it with; curves; samples; every setting."""

import base64
import html
import json
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gentrain import files, plugins, update
from gentrain.reporting import alarms, meter, plots
from gentrain.sums import Metric, declared

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
td.best { font-weight: 700; color: #0a6 }
pre { background: #f6f6f4; padding: .8rem 1rem; overflow-x: auto; white-space: pre-wrap } img { max-width: 100% }
.wide { overflow-x: auto }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem }
"""


def _series(records: list[dict[str, Any]], name: str) -> plots.Curve:
    points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
    return [p[0] for p in points], [p[1] for p in points]


def evaluator_metrics(config: dict[str, Any]) -> dict[str, Metric]:
    """Every metric that the evaluators of a run of this (flat) config declare."""
    found: dict[str, Metric] = {}
    for name in config["evaluate.evaluators"]:
        found |= getattr(plugins.load("evaluators", name), "METRICS", {})
    return found


def all_metrics(config: dict[str, Any]) -> dict[str, Metric]:
    """Every metric that a run may report: those of its evaluators, its objective and the program around them."""
    objective = plugins.load("objectives", config["objective.name"])
    training = getattr(objective, "METRICS", {}) | update.METRICS | meter.METRICS | alarms.METRICS
    return training | evaluator_metrics(config)


def draw(records: list[dict[str, Any]], folder: Path, metrics: dict[str, Metric]) -> list[Path]:
    """A plot for each unit, of what has a better direction and of the rest; what is to be compared with as lines."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({name for record in records for name in record} - {"step", "time"})
    groups: dict[tuple[str, str], list[str]] = {}
    levels: dict[str, dict[str, float]] = {}
    for name in names:
        if (found := declared(name, metrics)) is None:
            continue
        pattern, metric = found
        if metric.level:
            levels.setdefault(metric.unit, {})[name] = _series(records, name)[1][-1]
        elif not metric.restates and ("<" not in pattern or pattern.startswith("<")):
            title = pattern.partition("/")[2] if pattern.startswith("<player>") else metric.unit
            groups.setdefault((title, (metric.better and "better") or ""), []).append(name)
    drawn = []
    for (title, better), chosen in sorted(groups.items(), key=lambda group: (not group[0][1], group[0][0])):
        lines = {name: line for name in chosen if (line := _series(records, name))[0]}
        if lines:
            unit = declared(chosen[0], metrics)[1].unit  # type: ignore[index]
            drawn.append(folder / f"{re.sub(r'[^a-z0-9]+', '_', title.lower())}{'' if better else '_'}.png")
            plots.curves(lines, drawn[-1], title=title, unit=unit, levels=levels.get(unit) if better else {})
    return drawn


def _picture(path: Path) -> str:
    return f'<img alt="{path.stem}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def _samples(folder: Path) -> str:
    """The first, a middle and the last of the samples, side by side."""
    files = sorted(folder.iterdir()) if folder.exists() else []
    chosen = sorted({0, len(files) // 2, len(files) - 1} & set(range(len(files))))
    return _beside({f"step {int(files[i].stem):,}": files[i] for i in chosen})


def _beside(files: dict[str, Path]) -> str:
    """Samples side by side, each below its title."""
    shown = []
    for title, file in files.items():
        body = _picture(file) if file.suffix == ".png" else f"<pre>{html.escape(file.read_text())}</pre>"
        shown.append(f"<div><b>{html.escape(title)}</b>{body}</div>")
    return f'<div class="samples">{"".join(shown)}</div>'


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if math.isfinite(value) else "-"
    return html.escape(str(value))


def _table(rows: dict[str, Any]) -> str:
    cells = (f"<tr><td>{html.escape(name)}</td><td class=number>{_number(v)}</td></tr>" for name, v in rows.items())
    return f"<table>{''.join(cells)}</table>"


def summarise(records: list[dict[str, Any]], metrics: dict[str, Metric]) -> dict[str, Any]:
    """report.json: the last value of everything measured, and the best of all that has a better direction."""
    final: dict[str, Any] = {}
    for record in records:
        final |= {name: value for name, value in record.items() if value is not None}
    best: dict[str, Any] = {}
    for name in final:
        if direction := better_direction(name, metrics):
            steps, values = _series(records, name)
            choose = min if direction == "lower" else max
            value, step = choose(zip(values, steps, strict=True), key=lambda pair: pair[0])
            best[name] = {"value": value, "step": step}
    return {"final": final, "best": best}


def better_direction(name: str, metrics: dict[str, Metric]) -> str | None:
    """'lower' or 'higher' where the metric is declared to have a better direction, else None."""
    found = declared(name, metrics)
    return found[1].better if found else None


def verdict(values: dict[str, Any], evaluators: list[str]) -> str:
    """What was reached on held-out data, as the evaluators say it; empty where none says anything."""
    modules = [plugins.load("evaluators", name) for name in evaluators]
    return "; ".join(filter(None, (module.verdict(values) for module in modules if hasattr(module, "verdict"))))


def shown_in_tables(name: str, metrics: dict[str, Metric]) -> bool:
    """Whether variants are compared by it: all that evaluators measure but levels and long lists without a direction."""
    found = declared(name, metrics)
    if found is None or found[1].level:
        return False
    pattern, metric = found
    return metric.better is not None or "<" not in pattern


def compare(config: ConfigDict, workdir: Path, names: list[str]) -> Path:
    """One page across the variants of a sweep: the asked-for figures, what each reached, which was best at what; the
    same over seeds, where there are several.

    Best is said of variants of the same data only. Reads WORKDIR/<name>/report.json, config.json and metrics.jsonl;
    writes report.html, report.json and plots/ beside them.
    """
    variants = {name: files.read_json(workdir / name / "report.json") for name in names}
    configs = {name: files.read_json(workdir / name / "config.json") for name in names}
    plotted = workdir / "plots"
    plotted.mkdir(exist_ok=True)
    metrics: dict[str, Metric] = {}
    for flat in configs.values():
        metrics |= evaluator_metrics(flat)
    measured = sorted({key for found in variants.values() for key in found["final"]})
    columns = [key for key in measured if shown_in_tables(key, metrics)]
    learned_from = [{k: v for k, v in c.items() if k.split(".")[0] == "data"} for c in configs.values()]
    compared = columns if all(data == learned_from[0] for data in learned_from) else []
    final = {name: {k: v for k, v in found["final"].items() if k in columns} for name, found in variants.items()}
    best = _best(final, compared, metrics)
    spread = over_seeds(final, configs)
    means = {name: {column: value[0] for column, value in found.items()} for name, found in spread.items()}
    best_mean = _best(means, compared, metrics)
    figures, drawn = {}, []
    results = {name: {"config": configs[name], **variants[name]} for name in names}
    for figure in config.report.figures:
        drawn.append(plotted / f"{figure}.png")
        figures[figure] = plugins.load("figures", figure).draw(results, drawn[-1])
    asked, curves = len(drawn), [column for column in best if not declared(column, metrics)[1].restates]  # type: ignore[index]
    records = {name: files.read_jsonl(workdir / name / "metrics.jsonl") for name in names if curves}
    for column in curves:
        series = {name: _series(lines, column) for name, lines in records.items()}
        if lines := {name: line for name, line in series.items() if len(line[0]) > 2}:
            drawn.append(plotted / f"{re.sub(r'[^a-z0-9]+', '_', column)}.png")
            plots.curves(lines, drawn[-1], title=column, unit="")
    summary = {"variants": variants, "best": best, "over_seeds": spread, "figures": figures}
    files.write_json(workdir / "report.json", summary)
    link = lambda name: f'<a href="{html.escape(name)}/report.html">{html.escape(name)}</a>'
    cells = {name: {k: _number(v) for k, v in found.items()} for name, found in final.items()}
    tables = f"<h2>Last values</h2>{_grid(cells, columns, best, link)}"
    if spread:
        cell = lambda mean, sd, n: f"{_number(mean)} ± {_number(sd)} ({n})"
        cells = {name: {k: cell(*v) for k, v in found.items()} for name, found in spread.items()}
        head = "<h2>Over seeds</h2><p>mean ± standard deviation (seeds)</p>"
        tables = head + _grid(cells, columns, best_mean, html.escape) + tables
    won = "".join(f"<li>{html.escape(f'{column}: {name}')}</li>" for column, name in (best_mean or best).items())
    figures_first, then = "".join(map(_picture, drawn[:asked])), "".join(map(_picture, drawn[asked:]))
    last = {name: sorted((workdir / name / "samples").glob("*.*"))[-1:] for name in names}
    seen = _beside({name: files[0] for name, files in last.items() if files})
    body = f"{figures_first}<h2>Best at</h2><ul>{won}</ul>{tables}<h2>Samples</h2>{seen}<h2>Curves</h2>{then}"
    return _page(workdir, f"{len(names)} variants", body)


def _best(found: dict[str, dict[str, float]], columns: list[str], metrics: dict[str, Metric]) -> dict[str, str]:
    """{column: who is best at it}, for the columns in which there is a better direction and several to choose from."""
    best = {}
    for column in columns:
        values = {name: row[column] for name, row in found.items() if column in row}
        direction = better_direction(column, metrics)
        if direction and len(values) > 1:
            best[column] = (min if direction == "lower" else max)(values, key=lambda name: values[name])
    return best


def over_seeds(final: dict[str, dict[str, float]], configs: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """{group: {column: [mean, standard deviation (n - 1), n]}} of the variants that differ in their seed only.

    A group is named by what its variants' names share, 'all' if that is nothing.
    """
    groups: dict[str, list[str]] = {}
    for name, config in configs.items():
        same = {key: value for key, value in config.items() if key not in ("seed", "init_from")}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(name)
    found: dict[str, dict[str, list[float]]] = {}
    for members in groups.values():
        parts = [set(name.split(",")) for name in members]
        shared = ",".join(part for part in members[0].split(",") if part in set.intersection(*parts)) or "all"
        for column in sorted({column for name in members for column in final[name]}):
            values = [final[name][column] for name in members if column in final[name]]
            if len(values) > 1:
                row = found.setdefault(shared, {})
                row[column] = [statistics.fmean(values), statistics.stdev(values), len(values)]
    return found


def _grid(rows: dict[str, dict[str, str]], columns: list[str], best: dict[str, str], title: Callable) -> str:
    """A row for each variant or group, headed by title(its name); the best of a column stands out."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = ""
    for name, cells in rows.items():
        mark = {column: " best" for column in columns if best.get(column) == name}
        shown = (f'<td class="number{mark.get(column, "")}">{cells.get(column, "-")}</td>' for column in columns)
        body += f"<tr><td>{title(name)}</td>{''.join(shown)}</tr>"
    return f'<div class="wide"><table><tr><th>variant</th>{head}</tr>{body}</table></div>'


def _page(workdir: Path, summary: str, body: str) -> Path:
    """Writes report.html."""
    title, page = html.escape(workdir.name), workdir / "report.html"
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    page.write_text(f"{head}<h1>{title}</h1><p>{html.escape(summary)}</p>{body}\n")
    return page


def write(workdir: Path) -> Path:
    """Reads a workdir; writes plots/*.png, report.json and report.html there, and returns the last."""
    records = files.read_jsonl(workdir / "metrics.jsonl")
    config, spent = files.read_json(workdir / "config.json"), files.read_json(workdir / "goodput.json")
    metrics = all_metrics(config)
    summary = summarise(records, metrics)
    files.write_json(workdir / "report.json", summary)
    measured = {name: value for name, value in sorted(summary["final"].items()) if name != "time"}
    pictures = "".join(_picture(path) for path in draw(records, workdir / "plots", metrics))
    seconds = {f"seconds of {kind}": value for kind, value in spent.get("seconds", {}).items() if value}
    body = (
        f"<h2>Samples</h2>{_samples(workdir / 'samples')}<h2>Curves</h2>{pictures}"
        f"<h2>Last values</h2>{_table(measured)}"
        f"<h2>Time</h2>{_table(seconds)}"
        f"<h2>Config</h2><details><summary>every key</summary>{_table(config)}</details>"
    )
    return _page(workdir, verdict(summary["final"], config["evaluate.evaluators"]), body)
