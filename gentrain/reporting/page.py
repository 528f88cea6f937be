"""The HTML of a report: one page that needs no other file and no network, made from report.json and the samples."""

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gentrain.reporting import comparison, plane
from gentrain.reporting.comparison import Content
from gentrain.reporting.conclusion import all_of, capital, digits, spoken, within_spread

WEB = Path(__file__).parent / "web"
COLUMNS = 5  # metrics in the table; others are folded away
REFRESH = 15  # seconds after which the page of a run that is not finished loads itself anew
CHARTS = 8  # pictures that are not folded away
TEXT_LINES = 16  # of a file of samples
COSTS = {
    "steps": "steps",
    "examples": "examples",
    "wall": "seconds in all",
    "training": "seconds of training",
    "device_seconds": "device-seconds of training",
    "examples_per_second": "examples/s",
    "tokens_per_second": "tokens/s",
}


def render(content: Content, title: str, out: Path, samples: Mapping[str, Sequence[tuple[str, Path]]]) -> str:
    """The page. out: the folder that it is written to; samples: variant -> (caption, file) pairs."""
    variants = list(content["variants"])
    sections = [
        section("conclusion", "", conclusion(content, title)),
        section("plane", "Quality and coverage", planes(content)),
        section("results", "Results", results(content, variants)),
        section("samples", "Samples", sample_grid(samples)),
        section("curves", "Curves", chips(variants) + curves(content)),
        section("figures", "Figures", "".join(figure(out, name) for name in content["figures"])),
        section(
            "configs",
            "Config" if "config" in content else "What differs in the configs",
            differences(content, variants),
        ),
        section("cost", "Cost", cost(content, variants)),
        section("alarms", "Alarms", alarms(content)),
        section("reproduce", "How to reproduce", reproduce(content)),
    ]
    data = json.dumps({"curves": content["curves"], "variants": variants}, ensure_ascii=False, separators=(",", ":"))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"{f'<meta http-equiv=refresh content={REFRESH}>' if content['live'] else ''}"
        f"<title>{html.escape(title)}</title><style>{web('uPlot.min.css')}{web('report.css')}</style>"
        f"<body><main>{''.join(sections)}</main>"
        f'<script type="application/json" id="curves-data">{data.replace("<", chr(92) + "u003c")}</script>'
        f"<script>{web('uPlot.iife.min.js')}</script><script>{web('report.js')}</script></body></html>\n"
    )


def web(name: str) -> str:
    return (WEB / name).read_text()


def section(name: str, title: str, body: str) -> str:
    """A part of the page; none where there is nothing in it."""
    heading = f"<h2>{title}</h2>" if title else ""
    return f'<section id="{name}">{heading}{body}</section>' if body else ""


def conclusion(content: Content, title: str) -> str:
    """The sentences, and what of the runs failed."""
    *first, last = content["conclusion"]
    live = '<span class="live">running</span>' if content["live"] else ""
    said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in first)
    failed = [f"<li>{html.escape(name)}: {html.escape(why)}</li>" for name, why in content["failed"].items()]
    missing = f"<p><b>Failed:</b></p><ul>{''.join(failed)}</ul>" if failed else ""
    return f'<h1>{html.escape(title)}{live}</h1>{said}<p class="certainty">{html.escape(last)}</p>{missing}'


def planes(content: Content) -> str:
    """The pictures of quality against coverage, and what the lines of frontiers are."""
    drawn = "".join(plane.pictures(content).values())
    kinds = list(dict.fromkeys(spoken(kind) for frontier in content["frontiers"] for kind in frontier["curves"]))
    words = "Lines are over {}, the first solid, with a large dot at 1. Dotted: the bound."
    note = f'<p class="soft">{words.format(all_of(kinds))}</p>' if kinds else ""
    return f'<div class="planes">{drawn}</div>{note}' if drawn else ""


def swatch(number: int) -> str:
    return f'<span class="swatch" style="background:var(--c{number % 10})"></span>'


def results(content: Content, variants: Sequence[str]) -> str:
    """The table of the metrics that rank variants, the others folded below it."""
    metrics = content["metrics"]
    main = [name for name, metric in metrics.items() if metric["main"] and metric["values"]]
    shown, folded = main[:COLUMNS], [name for name in metrics if name not in main[:COLUMNS]]
    if not shown:
        shown, folded = folded[:COLUMNS], folded[COLUMNS:]
    drawn = plane.points(content["frontiers"])
    folded = [name for name in folded if metrics[name]["values"] and name not in drawn]
    body = table(content, variants, shown) if shown else ""
    meanings = [
        f"<li><b>{html.escape(spoken(name))}</b> ({html.escape(name)}): {html.escape(metrics[name]['meaning'])}</li>"
        for name in shown
    ]
    body += fold("What these numbers mean", f"<ul>{''.join(meanings)}</ul>") if shown else ""
    for first in range(0, len(folded), COLUMNS):
        part = folded[first : first + COLUMNS]
        body += fold(f"More: {', '.join(map(spoken, part))}", table(content, variants, part))
    body += fold("Better at an earlier step", earlier(content))
    links = run_links(content)
    return body + fold("Every run", links) if links else body


def table(content: Content, variants: Sequence[str], names: Sequence[str]) -> str:
    """A row for each variant and one for what to compare with, a column for each metric."""
    metrics = content["metrics"]
    heads = "".join(
        f"<th>{html.escape(spoken(name))}<small>{html.escape(unit(metrics[name]))}</small></th>" for name in names
    )
    rows = []
    for number, variant in enumerate(variants):
        cells = "".join(cell(name, metrics[name], variant) for name in names)
        rows.append(f"<tr><th>{swatch(number)}{html.escape(variant)}</th>{cells}</tr>")
    floors = {name: floor for name in names if (floor := reference(content, name))}
    if floors:
        cells = "".join(f'<td data-label="{label(name, metrics[name])}">{floors.get(name, "")}</td>' for name in names)
        rows.append(f'<tr class="reference"><th>to compare with</th>{cells}</tr>')
    head = f"<thead><tr><th></th>{heads}</tr></thead>"
    return f'<table class="cards">{head}<tbody>{"".join(rows)}</tbody></table>'


def unit(metric: Mapping[str, Any]) -> str:
    """A unit and which direction is better."""
    arrow = {"lower": " ↓ lower is better", "higher": " ↑ higher is better", None: ""}[metric["better"]]
    return f"{metric['unit']}{arrow}"


def label(name: str, metric: Mapping[str, Any]) -> str:
    """What stands beside a number where there is no head of its column."""
    arrow = {"lower": " ↓", "higher": " ↑", None: ""}[metric["better"]]
    return html.escape(f"{spoken(name)}, {metric['unit']}{arrow}")


def cell(name: str, metric: Mapping[str, Any], variant: str) -> str:
    """A variant's number, its interval, and whether it is best, tied or worst."""
    start = f'<td data-label="{label(name, metric)}"'
    value = metric["values"].get(variant)
    if not value:
        return f"{start}>-</td>"
    around, ranking = within_spread(value), metric["ranking"] or {}
    mark = next((mark for mark in ("best", "worst") if ranking.get(mark) == variant), "")
    mark = "tied" if variant in ranking.get("tied", ()) else mark
    badge = f' <span class="{mark}">{mark}</span>' if mark else ""
    low, high = (value["low"], value["high"]) if value["low"] is not None else value["within"] or (None, None)
    interval = f"[{digits(low, around)}, {digits(high, around)}]" if low is not None else ""
    within = " over samples" if interval and value["low"] is None else ""
    small = f"<small>{interval}{within}</small>" if interval else ""
    return f'{start} class="{mark}"><b>{digits(value["mean"], around)}</b>{badge}{small}</td>'


def reference(content: Content, name: str) -> str:
    """What real data or a baseline have of a metric."""
    floor = comparison.floor_of(content["metrics"][name])
    if floor is not None:
        return f"{digits(floor)}<small>real data</small>"
    levels = content["curves"][name]["levels"] if name in content["curves"] else {}
    return "".join(f"{digits(level)}<small>{html.escape(spoken(other))}</small>" for other, level in levels.items())


def earlier(content: Content) -> str:
    """Numbers that were clearly better before the end."""
    lines = []
    for name, run in content["runs"].items():
        for metric, best in run["best"].items():
            entry = content["metrics"].get(metric)
            if not entry or not entry["main"] or best["step"] == run["evaluated"]:
                continue
            value, last = best["value"], run["final"][metric]
            if abs(value - last) > 0.01 * abs(last):
                then = f"{spoken(metric)} {digits(value)} at step {best['step']:,}, {digits(last)} at the end"
                lines.append(f"<li>{html.escape(f'{name}: {then}')}</li>")
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def run_links(content: Content) -> str:
    """A line for each run, which leads to its own page."""
    lines = []
    for name, run in content["runs"].items():
        if run["folder"] != ".":
            target = html.escape(f"{run['folder']}/report.html")
            lines.append(f'<li><a href="{target}">{html.escape(name)}</a>: seed {run["seed"]}</li>')
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def fold(title: str, body: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{body}</details>" if body else ""


def sample_grid(samples: Mapping[str, Sequence[tuple[str, Path]]]) -> str:
    """Samples side by side, texts or pictures, each below what it is of."""
    shown = []
    for variant, found in samples.items():
        for caption, path in found:
            if path.suffix == ".png":
                body = picture(path, f"samples of {variant}")
            else:
                lines = path.read_text("utf-8", "replace").splitlines()
                more = "\n…" if len(lines) > TEXT_LINES else ""
                text = "\n".join(lines[:TEXT_LINES]) + more
                body = f"<pre>{html.escape(text)}</pre>"
            small = f"<small>{html.escape(caption)}</small>"
            shown.append(f"<div><h3>{html.escape(variant)}</h3>{small}{body}</div>")
    return f'<div class="grid">{"".join(shown)}</div>' if shown else ""


def picture(path: Path, alt: str, style: str = "samples") -> str:
    """A PNG as a part of the page."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img class="{style}" alt="{html.escape(alt)}" src="data:image/png;base64,{encoded}">'


def figure(out: Path, name: str) -> str:
    return f"<h3>{html.escape(spoken(name))}</h3>{picture(out / 'plots' / f'{name}.png', name, 'figure')}"


def chips(variants: Sequence[str]) -> str:
    """A button for each variant, which switches it on and off in every picture."""
    if len(variants) < 2:
        return ""
    buttons = [
        f'<button class="chip" data-variant="{number}" aria-pressed="true">{swatch(number)}{html.escape(name)}</button>'
        for number, name in enumerate(variants)
    ]
    return f'<div class="chips">{"".join(buttons)}</div>'


def curves(content: Content) -> str:
    """A chart for each curve: those of the main metrics, then the rest, then those of training, folded away."""
    metrics, drawn = content["metrics"], content["curves"]
    main = [name for name in drawn if drawn[name]["evaluated"] and metrics[name]["main"]]
    rest = [name for name in drawn if drawn[name]["evaluated"] and name not in main]
    training = [name for name in drawn if not drawn[name]["evaluated"]]
    if not main:
        main, rest = rest, []
    main, rest = main[:CHARTS], [*main[CHARTS:], *rest]
    if not drawn:
        return ""
    hint = "" if len(content["runs"]) == len(content["variants"]) else " Lines are means over seeds, bands all of them."
    use = "Hover for values, click a name to switch its line, drag to zoom, double-click to go back."
    note = f'<p class="soft">{use}{hint}</p>'
    note += "<noscript><p>The curves need JavaScript; their numbers are in report.json.</p></noscript>"
    folded = [fold("More of what was evaluated", charts(rest, drawn)), fold("Training", charts(training, drawn))]
    return note + charts(main, drawn) + "".join(folded)


def charts(names: Iterable[str], drawn: Mapping[str, Any]) -> str:
    boxes = []
    for name in names:
        above = " · early values lie outside" if drawn[name]["window"] else ""
        head = f"<h3>{html.escape(spoken(name))}</h3><small>{html.escape(unit(drawn[name]))}{above}</small>"
        boxes.append(f'<div>{head}<div class="chart" data-chart="{html.escape(name)}"></div></div>')
    return f'<div class="charts">{"".join(boxes)}</div>' if boxes else ""


def differences(content: Content, variants: Sequence[str]) -> str:
    """The options in which variants differ; of one run, every option."""
    if "config" in content:
        rows = [[key, json.dumps(value).strip('"')] for key, value in content["config"].items()]
        return fold("Every option", plain_table(["option", "value"], rows))
    first = {variant: content["variants"][variant]["runs"][0] for variant in variants}
    said = lambda value: json.dumps(value, ensure_ascii=False).strip('"')
    columns = {
        key: [said(values[run]) for run in first.values()]
        for key, values in content["differs"].items()
        if key != "seed" and any(values[run] != values[first[variants[0]]] for run in first.values())
    }
    if not columns:
        return ""
    if len(columns) > max(len(variants), COLUMNS):
        return plain_table(["option", *variants], [[key, *values] for key, values in columns.items()])
    rows = [[variant, *(values[number] for values in columns.values())] for number, variant in enumerate(variants)]
    return plain_table(["variant", *columns], rows)


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, whose first column heads its rows."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *heads[1:]])
    lines = []
    for first, *others in rows:
        cells = "".join(
            f'<td data-label="{html.escape(name)}">{html.escape(text)}</td>'
            for name, text in zip(heads[1:], others, strict=True)
        )
        lines.append(f"<tr><th>{html.escape(first)}</th>{cells}</tr>")
    return f'<table class="cards"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def cost(content: Content, variants: Sequence[str]) -> str:
    """What each variant took, a run on average."""
    entries = {variant: content["variants"][variant]["cost"] for variant in variants}
    kinds = [kind for kind in COSTS if any(kind in entry for entry in entries.values())]
    rows = [[name, *(digits(entry.get(kind)) for kind in kinds)] for name, entry in entries.items()]
    body = plain_table(["", *(COSTS[kind] for kind in kinds)], rows) if kinds else ""
    spent = {name: run["seconds"] for name, run in content["runs"].items() if run["seconds"]}
    phases = [phase for phase in next(iter(spent.values()), {}) if any(seconds[phase] for seconds in spent.values())]
    rows = [[name, *(f"{seconds[phase]:,.4g}" for phase in phases)] for name, seconds in spent.items()]
    return body + fold("Seconds of every run, by what they went on", plain_table(["", *phases], rows) if rows else "")


def alarms(content: Content) -> str:
    """Which alarms rang in which run, and when."""
    lines = []
    for name, run in content["runs"].items():
        for alarm, steps in run["alarms"].items():
            when = (
                f"at step {steps[0]:,}"
                if len(steps) == 1
                else f"{len(steps)} times, from step {steps[0]:,} to {steps[-1]:,}"
            )
            lines.append(f"<li>{html.escape(f'{name}: {spoken(alarm)} {when}')}</li>")
    return f"<ul>{''.join(lines)}</ul>" if lines else "<p>None rang.</p>" if content["runs"] else ""


def reproduce(content: Content) -> str:
    """Commands, commits, versions and hardware, each once."""
    found = [run["provenance"] for run in content["runs"].values() if run["provenance"]]
    if not found:
        return ""
    unique = lambda key: list(dict.fromkeys(str(one.get(key) or "unknown") for one in found))
    packages = list(dict.fromkeys(", ".join(f"{k} {v}" for k, v in one.get("packages", {}).items()) for one in found))
    commands = "\n".join(unique("command"))
    rows = {"commit": unique("commit"), "date": unique("date"), "hardware": unique("hardware")}
    rows |= {"Python": unique("python"), "packages": packages}
    lines = "".join(f"<li>{capital(name)}: {html.escape(all_of(values))}</li>" for name, values in rows.items())
    return f"<pre>{html.escape(commands)}</pre><ul>{lines}</ul>"
