"""What a suite measured, drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw(suite: str, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The picture of a suite: bars of CPU time by work and contender, or lines of growth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = draw_growth(pyplot, rows) if suite == "growth" else draw_bars(pyplot, rows)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def draw_bars(pyplot: Any, rows: Sequence[dict[str, Any]]) -> Any:
    """CPU ms of each contender, works below one another."""
    rows = [row for row in rows if "cpu_ms" in row]
    names = list(dict.fromkeys(row["contender"] for row in rows))
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.28 * len(rows)))
    for number, row in enumerate(rows):
        axes.barh(number, row["cpu_ms"], color=f"C{names.index(row['contender'])}")
    axes.set_yticks(range(len(rows)), [f"{row['work']}: {row['contender']}" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("CPU ms, median; less is better")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_growth(pyplot: Any, rows: Sequence[dict[str, Any]]) -> Any:
    """Time and temporary memory against each size, by its smallest value."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6))
    for panel, name, label in zip(panels, ("cpu_ms", "temporary_mb"), ("CPU time", "temporary memory"), strict=True):
        for family, size in dict.fromkeys((row["family"], row["size"]) for row in rows):
            own = [row for row in rows if (row["family"], row["size"]) == (family, size)]
            style = {"transformer": "-", "lstm": "--"}.get(family, ":")
            times = [row["at"] / own[0]["at"] for row in own]
            panel.plot(times, [row[name] / own[0][name] for row in own], style, marker="o", label=f"{family}, {size}")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        panel.set_xlabel("size, by the smallest")
        panel.set_ylabel(f"{label}, by that at the smallest")
        panel.spines[["top", "right"]].set_visible(False)
    panels[1].legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))  # beside the lines
    return figure
