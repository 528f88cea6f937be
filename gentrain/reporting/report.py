"""The report of runs: report.html, which people read, and report.json, which has every number in it."""

import contextlib
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gentrain import files, plugins
from gentrain.errors import GentrainError, ReportError, Stopped, first_line
from gentrain.reporting import comparison, conclusion, page, runs
from gentrain.reporting.runs import Run, better_direction, evaluator_metrics


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


def is_written(workdir: Path) -> bool:
    """Whether what `write` writes is there, undamaged."""
    return "runs" in files.read_json(workdir / "report.json") and (workdir / "report.html").exists()


def write(workdir: Path) -> Path:
    """The report of one run, in its workdir."""
    return compare({workdir.name: workdir}, workdir)


def refresh(folders: Mapping[str, Path], out: Path, failed: Mapping[str, str] | None = None, live: bool = True) -> None:
    """As `compare`, of what there is by now, for runs that have more to do than to report: not more often than the page
    loads itself, and with a warning where it goes wrong."""
    written = out / "report.html"
    if live and written.exists() and time.time() - written.stat().st_mtime < page.REFRESH:
        return
    begun = {name: folder for name, folder in folders.items() if (folder / "config.json").exists()}
    try:
        compare(begun, out, failed, live=live)
    except ReportError as error:
        warnings.warn(f"{out}: its report is not written ({first_line(error.__cause__ or error)})", stacklevel=2)


def compare(
    folders: Mapping[str, Path],
    out: Path,
    failed: Mapping[str, str] | None = None,
    figures: Sequence[str] = (),
    live: bool = False,
) -> Path:
    """Writes report.html and report.json on any runs into a folder, and returns the first.

    folders: the workdirs by the names of their runs; failed: runs that have no workdir to read, and why; figures: those
    of gentrain/reporting/figures, drawn into plots/. Raises ReportError where that goes wrong; all but the figures that
    went wrong is written. live: they go on, so that the page loads itself anew.
    """
    with after_training(out):
        found = [runs.read(name, folder) for name, folder in folders.items()]
        out.mkdir(parents=True, exist_ok=True)
        numbers, broken = draw_figures(found, out, figures)
        content = comparison.content(found, {**(failed or {}), **broken}, out)
        content |= {"figures": numbers, "live": live, "conclusion": conclusion.sentences(content)}
        if len(found) == 1:
            content = found[0].summary | {"config": found[0].config} | content
        files.write_json(out / "report.json", without_nan(content))
        title = out.resolve().name
        text = page.render(content, title, out, samples(found))
        written = out / "report.html"
        files.write_bytes(written, text.encode())
    if broken:
        raise ReportError(f"{written} is without {'; '.join(f'{name} ({why})' for name, why in broken.items())}")
    return written


def draw_figures(found: Sequence[Run], out: Path, figures: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """(figure -> its numbers, figure -> why it could not be drawn)."""
    results = {run.name: {"config": run.config, "folder": run.folder, **run.summary} for run in found}
    numbers: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for figure in figures:
        (out / "plots").mkdir(exist_ok=True)
        try:
            numbers[figure] = plugins.load("reporting.figures", figure).draw(results, out / "plots" / f"{figure}.png")
        except Stopped:
            raise
        except Exception as error:  # a figure may need a variant that failed
            broken[figure] = first_line(error)
    return numbers, broken


def samples(found: Sequence[Run]) -> dict[str, list[tuple[str, Path]]]:
    """The newest samples of each variant's first run; of a single run the first, a middle and the last ones."""
    groups = runs.variants(found)
    chosen: dict[str, list[tuple[str, Path]]] = {}
    for variant, group in groups.items():
        run = next((run for run in group if run.samples), None)
        if run:
            paths = run.samples
            indices = {len(paths) - 1} if len(groups) > 1 else {0, len(paths) // 2, len(paths) - 1}
            chosen[variant] = [(caption(run, paths[index]), paths[index]) for index in sorted(indices)]
    return chosen


def caption(run: Run, path: Path) -> str:
    """Which step samples are of and, of pictures of each class in turn, which is where."""
    spec = files.read_json(run.folder / "spec.json")
    names = spec.get("context_names") or [str(number) for number in range(spec.get("context_vocab", 0))]
    step = f"step {int(path.stem):,}"
    if path.suffix != ".png" or not names or spec.get("context_shape") != [1]:
        return step
    return f"{step}; row by row, in turn: {', '.join(names)}"


def without_nan(value: Any) -> Any:
    """As JSON holds it: numbers that are not finite are null."""
    if isinstance(value, dict):
        return {str(key): without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
