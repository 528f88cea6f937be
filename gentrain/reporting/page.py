"""The HTML of reports: one page that needs no other file, pictures included."""

import base64
import contextlib
import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gentrain import files
from gentrain.errors import GentrainError, ReportError, first_line

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


def picture(path: Path) -> str:
    """A PNG as a part of the page."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{path.stem}" src="data:image/png;base64,{encoded}">'


def pictures(paths: Sequence[Path]) -> str:
    """Several PNGs, one after another."""
    return "".join(picture(path) for path in paths)


def number(value: Any) -> str:
    """A value as a table shows it: four digits of a float, '-' for one that is not finite, else its text."""
    if isinstance(value, float):
        return f"{value:,.4g}" if math.isfinite(value) else "-"
    return html.escape(str(value))


def link(name: str) -> str:
    """A link to the report of a variant."""
    return f'<a href="{html.escape(name)}/report.html">{html.escape(name)}</a>'


def bullets(items: Sequence[str]) -> str:
    """A list of short texts."""
    return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"


def table(rows: Mapping[str, Any]) -> str:
    """Two columns: a name and its value."""
    lines = []
    for name, value in rows.items():
        lines.append(f"<tr><td>{html.escape(name)}</td><td class=number>{number(value)}</td></tr>")
    return f"<table>{''.join(lines)}</table>"


def variants_table(
    rows: Mapping[str, Mapping[str, str]],
    columns: Sequence[str],
    best: Mapping[str, str],
    title: Callable[[str], str] = html.escape,
) -> str:
    """A row for each variant, headed by title(its name); rows: variant -> column -> cell; the best of a column stands
    out."""
    heads = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = []
    for name, cells in rows.items():
        line = [f"<td>{title(name)}</td>"]
        for column in columns:
            style = "number best" if best.get(column) == name else "number"
            line.append(f'<td class="{style}">{cells.get(column, "-")}</td>')
        lines.append(f"<tr>{''.join(line)}</tr>")
    return f'<div class="wide"><table><tr><th>variant</th>{heads}</tr>{"".join(lines)}</table></div>'


def samples(paths: Mapping[str, Path]) -> str:
    """Files of samples, texts or PNGs, side by side, each below its title."""
    shown = []
    for title, path in paths.items():
        if path.suffix == ".png":
            body = picture(path)
        else:
            body = f"<pre>{html.escape(path.read_text('utf-8', 'replace'))}</pre>"
        shown.append(f"<div><b>{html.escape(title)}</b>{body}</div>")
    return f'<div class="samples">{"".join(shown)}</div>'


def write(workdir: Path, summary: str, body: str) -> Path:
    """Writes WORKDIR/report.html, named after its folder, and returns it."""
    title, path = html.escape(workdir.name), workdir / "report.html"
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    text = f"{head}<h1>{title}</h1><p>{html.escape(summary)}</p>{body}\n"
    files.write_bytes(path, text.encode())
    return path


@contextlib.contextmanager
def after_training(workdir: Path) -> Iterator[None]:
    """What is done inside cannot lose what was trained: whatever goes wrong is a ReportError that says so."""
    try:
        yield
    except GentrainError:
        raise
    except Exception as error:
        raise ReportError(
            f"{workdir}: all is trained and saved, but its report is not written ({first_line(error)}); run the same"
            " command again to write it"
        ) from error
