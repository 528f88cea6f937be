"""Quality against coverage as an inline SVG: a point for each variant, its interval over seeds, its values on hover."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gentrain.reporting.conclusion import digits, spoken

LEFT, EDGE, TOP, FLOOR, HEIGHT = 64, 450, 16, 312, 360  # the frame, and below it room for marks; names are to its right
CHARACTER = 7.2  # width of a letter of a name
LONGEST = 36  # letters of a name that there is room for
LOG_FROM = 20  # largest by smallest above which an axis of positive numbers is logarithmic


class Axis(NamedTuple):
    """One axis: a value's place from 0 to 1, and the values that are marked."""

    place: Callable[[float], float]
    marks: list[float]


def axis(values: Sequence[float]) -> Axis:
    """An axis that holds all values, with a margin."""
    low, high = min(values), max(values)
    if low > 0 and high / low > LOG_FROM:
        first, last = math.log10(low) - 0.05, math.log10(high) + 0.05
        marks = [step * 10.0**power for power in range(math.floor(first), math.ceil(last)) for step in (1, 2, 5)]
        return Axis(
            lambda value: (math.log10(value) - first) / (last - first),
            [mark for mark in marks if first <= math.log10(mark) <= last],
        )
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    first, last = low - margin, high + margin
    rough = (last - first) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    count = math.floor(last / step) - math.ceil(first / step) + 1
    marks = [(math.ceil(first / step) + number) * step for number in range(count)]
    return Axis(lambda value: (value - first) / (last - first), marks)


def draw(quality: str, coverage: str, metrics: Mapping[str, Any], variants: Sequence[str]) -> str:
    """Coverage to the right, quality upwards; '' where no variant has both. variants: all, which gives the colours."""
    values = {
        name: (metrics[coverage]["values"][name], metrics[quality]["values"][name])
        for name in variants
        if name in metrics[coverage]["values"] and name in metrics[quality]["values"]
    }
    if not values:
        return ""
    across = axis([value for right, _ in values.values() for value in ends(right)])
    up = axis([value for _, top in values.values() for value in ends(top)])
    x = lambda value: LEFT + across.place(value) * (EDGE - LEFT)
    y = lambda value: FLOOR - up.place(value) * (FLOOR - TOP)
    parts = frame(across, up, x, y)
    heights = label_places([y(top["mean"]) for _, top in values.values()])
    for (name, (right, top)), height in zip(values.items(), heights, strict=True):
        said = f"{name}: {spoken(coverage)} {told(right)}, {spoken(quality)} {told(top)}"
        marks = point([x(end) for end in ends(right)], [y(end) for end in ends(top)], height)
        number = variants.index(name)
        parts.append(
            f'<g data-variant="{number}" stroke="var(--c{number % 10})" fill="var(--c{number % 10})">'
            f'<title>{html.escape(said)}</title>{marks}<text class="name" stroke="none"'
            f' x="{EDGE + 12}" y="{height + 4:.1f}">'
            f"{html.escape(shortened(name))}</text></g>"
        )
    names = [title(coverage, metrics, "→", "←"), title(quality, metrics, "↑", "↓")]
    parts.append(f'<text x="{(LEFT + EDGE) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{names[0]}</text>')
    middle = (TOP + FLOOR) / 2
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" {turned}>{names[1]}</text>')
    aria = html.escape(f"{spoken(quality)} against {spoken(coverage)}")
    width = EDGE + 20 + CHARACTER * max(len(shortened(name)) for name in values)
    return (
        f'<svg class="plane" viewBox="0 0 {width:.0f} {HEIGHT}" role="img" aria-label="{aria}">{"".join(parts)}</svg>'
    )


def standalone(drawn: str, style: str) -> str:
    """What `draw` returns as a file of its own. style: the sheet of the page that it would stand in."""
    opened = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return opened.replace(">", f"><style>{style} text {{ font-family: system-ui, sans-serif }}</style>", 1)


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def frame(across: Axis, up: Axis, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    """Grid lines with their numbers."""
    parts = []
    for mark in across.marks:
        parts.append(f'<path class="axis" d="M{x(mark):.1f} {TOP}V{FLOOR}"/>')
        parts.append(f'<text x="{x(mark):.1f}" y="{FLOOR + 16}" text-anchor="middle">{mark:g}</text>')
    for mark in up.marks:
        parts.append(f'<path class="axis" d="M{LEFT} {y(mark):.1f}H{EDGE}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:g}</text>')
    return parts


def ends(value: Mapping[str, Any]) -> list[float]:
    """The value and, where it has one that does not dwarf it, the ends of its interval."""
    if value["low"] is None or value["high"] - value["low"] > 2 * abs(value["mean"]):
        return [value["mean"]]
    return [value["low"], value["mean"], value["high"]]


def point(across: Sequence[float], up: Sequence[float], height: float) -> str:
    """A dot with its intervals, and a thin line to its label. across, up: the value's place, between those of the ends
    of its interval where it has one."""
    x, y = across[len(across) // 2], up[len(up) // 2]
    bars = f"M{across[0]:.1f} {y:.1f}H{across[-1]:.1f}M{x:.1f} {up[0]:.1f}V{up[-1]:.1f}"
    leader = f"M{x:.1f} {y:.1f}L{EDGE + 8} {height:.1f}"
    return f'<path d="{bars}"/><path stroke-width=".5" d="{leader}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


def told(value: Mapping[str, Any]) -> str:
    interval = "" if value["low"] is None else f" [{digits(value['low'])}, {digits(value['high'])}]"
    return f"{digits(value['mean'])}{interval}"


def title(name: str, metrics: Mapping[str, Any], more: str, less: str) -> str:
    """A metric, its unit and an arrow to where it is better."""
    metric = metrics[name]
    arrow = {"higher": f" {more} better", "lower": f" {less} better", None: ""}[metric["better"]]
    return html.escape(f"{spoken(name)}, {metric['unit']}{arrow}")


def label_places(wanted: Sequence[float]) -> list[float]:
    """Heights of labels near those wanted, no two of which overlap, as long as there is room."""
    apart = min(17.0, (HEIGHT - TOP - 4) / len(wanted))
    places = [0.0] * len(wanted)
    floor = TOP + 4.0
    for index in sorted(range(len(wanted)), key=lambda index: wanted[index]):
        places[index] = max(wanted[index], floor)
        floor = places[index] + apart
    over = max(places) - HEIGHT + 4
    return [place - max(over, 0.0) for place in places]
