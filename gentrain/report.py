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

from gentrain import metrics, plots, plugins

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


def draw(records: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Likelihood curves with the baselines as lines, then error rates, losses, gradient norms, learning rates and the
    speed."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({name for record in records for name in record} - {"step", "time"})
    baselines = {n.removeprefix("baseline/"): _series(records, n)[1][-1] for n in names if n.startswith("baseline/")}
    best = {name: value for name, value in baselines.items() if name.startswith("best")}
    independent = {name: value for name, value in baselines.items() if "independent" in name}
    wanted = [
        ("likelihood", "nats/token", [n for n in names if n.endswith("/nll")], best),
        ("images", "nats/image", [n for n in names if n.endswith("/nats_per_image")], independent),
        ("error rate", "share", [n for n in names if n.endswith("_error_rate")], {}),
        ("loss", "loss", [n for n in names if n.endswith("/loss")], {}),
        ("gradient norm", "norm", [n for n in names if n.endswith("/grad_norm")], {}),
        ("learning rate", "rate", [n for n in names if n.endswith("/learning_rate")], {}),
        ("speed", "tokens/s", [n for n in names if n == "tokens_per_second"], {}),
    ]
    drawn = []
    for title, unit, chosen, levels in wanted:
        lines = {name: line for name in chosen if (line := _series(records, name))[0]}
        if lines:
            drawn.append(folder / f"{title.replace(' ', '_')}.png")
            plots.curves(lines, drawn[-1], title=title, unit=unit, levels=levels)
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


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """report.json: the last value of everything measured, and the best of each likelihood on held-out data."""
    final: dict[str, Any] = {}
    for record in records:
        final |= {name: value for name, value in record.items() if value is not None}
    held_out = [name for name in final if name.split("/")[0] in ("valid", "test") and name.endswith("/nll")]
    best = {name: min((value, step) for step, value in zip(*_series(records, name), strict=True)) for name in held_out}
    return {"final": final, "best": {name: {"value": value, "step": step} for name, (value, step) in best.items()}}


def verdict(values: dict[str, Any]) -> str:
    """What was reached on held-out data: likelihood, then errors; empty where neither can be said."""
    return "; ".join(filter(None, (_likelihood(values), _errors(values))))


def _likelihood(values: dict[str, Any]) -> str:
    """Held-out likelihood in the unit people compare, beside the baseline that was measured with it; empty without
    one."""
    for split in ("valid", "test", "train"):
        for ours, theirs, unit in (
            ("nll", "best n-gram", "nats/token"),
            ("nats_per_image", "independent pixels", "nats/image"),
        ):
            mine, baseline = (
                values.get(f"{split}/{ours}"),
                values.get(f"baseline/{theirs.replace(' ', '_').replace('-', '')}"),
            )
            if mine is not None and baseline is not None:
                per_char = values.get(f"{split}/nats_per_char")
                unit = "nats/char" if per_char == mine else unit
                word = "better" if mine < baseline else "worse"
                return f"{mine:.3f} {unit} on {split}, {word} than {theirs} ({baseline:.3f})"
    return ""


def _errors(values: dict[str, Any]) -> str:
    """How much of what was answered to contexts is wrong; empty where nothing was asked."""
    for split in ("valid", "test", "train"):
        wrong = [values.get(f"{split}/{of}_error_rate") for of in ("token", "sequence")]
        if None not in wrong:
            bleu = f", BLEU {values[f'{split}/bleu']:.1f}" if f"{split}/bleu" in values else ""
            return f"{wrong[0]:.1%} of tokens wrong, {wrong[1]:.1%} of sequences on {split}{bleu}".replace("%", " %")
    return ""


LOWER_IS_BETTER = re.compile(
    r"/(nll\w*|\w+_kl(_sampled)?|njs@.*|perplexity|\w+_per_\w+|\w+_error(_rate)?|frechet)(?<!_se)$"
)
HIGHER_IS_BETTER = re.compile(r"/(bleu|precision|recall|coverage)$")
# What a player minimises is its own affair: losses of different objectives are not to be compared.
NOT_COMPARED = re.compile(
    r"^(step|time|tokens_per_second|mfu)$|^(baseline|generator|critic|mediator|frontier)/|"
    r"/(length|accuracy|frechet_floor|js@.*|marginal_.*|.*_se)$"
)
SAME_IN_OTHER_UNITS = re.compile(r"/(perplexity|\w+_per_\w+)$")


def compare(config: ConfigDict, workdir: Path, names: list[str]) -> Path:
    """One page across the variants of a sweep: the asked-for figures, what each reached, which was best at what; the
    same over seeds, where there are several.

    Best is said of variants of the same data only. Reads WORKDIR/<name>/report.json, config.json and metrics.jsonl;
    writes report.html, report.json and plots/ beside them.
    """
    variants = {name: metrics.read_json(workdir / name / "report.json") for name in names}
    configs = {name: metrics.read_json(workdir / name / "config.json") for name in names}
    plotted = workdir / "plots"
    plotted.mkdir(exist_ok=True)
    measured = sorted({key for found in variants.values() for key in found["final"]})
    columns = [key for key in measured if not NOT_COMPARED.search(key)]
    learned_from = [{k: v for k, v in c.items() if k.split(".")[0] in ("data", "world")} for c in configs.values()]
    compared = columns if all(data == learned_from[0] for data in learned_from) else []
    final = {name: {k: v for k, v in found["final"].items() if k in columns} for name, found in variants.items()}
    best = _best(final, compared)
    spread = over_seeds(final, configs)
    means = {name: {column: value[0] for column, value in found.items()} for name, found in spread.items()}
    best_mean = _best(means, compared)
    figures, drawn = {}, []
    results = {name: {"config": configs[name], **variants[name]} for name in names}
    for figure in config.figures:
        drawn.append(plotted / f"{figure}.png")
        figures[figure] = plugins.load("figures", figure).draw(results, drawn[-1])
    asked, curves = len(drawn), [column for column in best if not SAME_IN_OTHER_UNITS.search(column)]
    records = {name: metrics.read_jsonl(workdir / name / "metrics.jsonl") for name in names if curves}
    for column in curves:
        series = {name: _series(lines, column) for name, lines in records.items()}
        if lines := {name: line for name, line in series.items() if len(line[0]) > 2}:
            drawn.append(plotted / f"{re.sub(r'[^a-z0-9]+', '_', column)}.png")
            plots.curves(lines, drawn[-1], title=column, unit="")
    summary = {"variants": variants, "best": best, "over_seeds": spread, "figures": figures}
    metrics.write_json(workdir / "report.json", summary)
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


def _best(found: dict[str, dict[str, float]], columns: list[str]) -> dict[str, str]:
    """{column: who is best at it}, for the columns in which there is a better and several to choose from."""
    best = {}
    for column in columns:
        values = {name: row[column] for name, row in found.items() if column in row}
        for better, choose in ((LOWER_IS_BETTER, min), (HIGHER_IS_BETTER, max)):
            if better.search(column) and len(values) > 1:
                best[column] = choose(values, key=lambda name: values[name])
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
    records = metrics.read_jsonl(workdir / "metrics.jsonl")
    summary = summarise(records)
    metrics.write_json(workdir / "report.json", summary)
    measured = {name: value for name, value in sorted(summary["final"].items()) if name != "time"}
    pictures = "".join(_picture(path) for path in draw(records, workdir / "plots"))
    config, spent = metrics.read_json(workdir / "config.json"), metrics.read_json(workdir / "goodput.json")
    seconds = {f"seconds of {kind}": value for kind, value in spent.get("seconds", {}).items() if value}
    body = (
        f"<h2>Samples</h2>{_samples(workdir / 'samples')}<h2>Curves</h2>{pictures}"
        f"<h2>Last values</h2>{_table(measured)}"
        f"<h2>Time</h2>{_table(seconds)}"
        f"<h2>Config</h2><details><summary>every key</summary>{_table(config)}</details>"
    )
    return _page(workdir, verdict(summary["final"]), body)
