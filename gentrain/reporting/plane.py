"""Quality against coverage as an inline SVG: a point for each variant, its interval over seeds, its values on hover; or
a curve for each, over settings as temperatures."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gentrain.reporting.conclusion import all_of, digits, spoken

LEFT, EDGE, TOP, FLOOR, HEIGHT = 64, 450, 16, 312, 360  # the frame, and below it room for marks; names are to its right
MOST = 4  # pairs that are drawn
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


def pictures(content: Mapping[str, Any]) -> dict[str, str]:
    """Of a report's content every frontier and, of several variants, the first few pairs of a quality and a coverage;
    by what they show, 'quality against coverage'."""
    metrics, variants = content["metrics"], list(content["variants"])
    drawn = {against(frontier): draw_curves(frontier, metrics, variants) for frontier in content["frontiers"]}
    for pair in content["pairs"][:MOST] if len(variants) > 1 else ():
        drawn[against(pair)] = draw(pair["quality"], pair["coverage"], metrics, variants)
    return {name: picture for name, picture in drawn.items() if picture}


def against(pair: Mapping[str, Any]) -> str:
    return f"{pair['quality']} against {pair['coverage']}"


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
    x, y = places(across, up)
    heights = label_places([y(top["mean"]) for _, top in values.values()])
    groups = []
    for (name, (right, top)), height in zip(values.items(), heights, strict=True):
        said = f"{name}: {spoken(coverage)} {told(right)}, {spoken(quality)} {told(top)}"
        marks = point([x(end) for end in ends(right)], [y(end) for end in ends(top)], height)
        groups.append(group(name, variants, f"<title>{html.escape(said)}</title>{marks}", height))
    titles = [title(name, metrics[name]["unit"], metrics[name]["better"]) for name in (quality, coverage)]
    aria = f"{spoken(quality)} against {spoken(coverage)}"
    return picture([*frame(across, up), *groups], titles, list(values), aria)


def draw_curves(frontier: Mapping[str, Any], metrics: Mapping[str, Any], variants: Sequence[str]) -> str:
    """A variant's line through its settings of each kind, the first kind solid, and a line at the bound on coverage; ''
    where no variant has one."""
    lines = {name: curves for name in variants if (curves := curves_of(name, frontier["curves"], metrics))}
    if not lines:
        return ""
    every = [point for curves in lines.values() for curve in curves.values() for point in curve]
    bounds = list(metrics[frontier["bound"]]["values"].values())[:1] if frontier["bound"] else []
    across = axis([value["mean"] for value in [*(point.coverage for point in every), *bounds]])
    up = axis([point.quality["mean"] for point in every])
    x, y = places(across, up)
    tails = [next(iter(curves.values()))[-1] for curves in lines.values()]
    heights = label_places([y(tail.quality["mean"]) for tail in tails])
    parts = frame(across, up)
    for bound in bounds:
        said = html.escape(f"{spoken(frontier['bound'])}: {told(bound)}")
        parts.append(f'<path class="bound" d="M{x(bound["mean"]):.1f} {TOP}V{FLOOR}"><title>{said}</title></path>')
    for (name, curves), tail, height in zip(lines.items(), tails, heights, strict=True):
        leader = f"M{x(tail.coverage['mean']):.1f} {y(tail.quality['mean']):.1f}L{EDGE + 8} {height:.1f}"
        marks = [f'<path stroke-width=".5" d="{leader}"/>']
        for number, (kind, curve) in enumerate(curves.items()):
            spots = [(x(point.coverage["mean"]), y(point.quality["mean"])) for point in curve]
            way = "L".join(f"{left:.1f} {above:.1f}" for left, above in spots)
            dashed = ' stroke-dasharray="5 4"' if number else ""
            marks.append(f'<path style="fill:none" stroke-width="1.5"{dashed} d="M{way}"/>')
            for point, (left, above) in zip(curve, spots, strict=True):
                pair = [f"{spoken(frontier[of])} {told(getattr(point, of))}" for of in ("coverage", "quality")]
                said = html.escape(f"{name} at {spoken(kind)} {point.setting:g}: {', '.join(pair)}")
                circle = f'cx="{left:.1f}" cy="{above:.1f}" r="{5 if point.setting == 1 else 3}"'
                marks.append(f"<circle {circle}><title>{said}</title></circle>")
        parts.append(group(name, variants, "".join(marks), height))
    (*_, quality, coverage), *_ = next(iter(frontier["curves"].values()))
    names = zip((frontier["quality"], frontier["coverage"]), (quality, coverage), frontier["better"], strict=True)
    titles = [title(name, metrics[at]["unit"], better) for name, at, better in names]
    aria = (
        f"{spoken(frontier['quality'])} against {spoken(frontier['coverage'])} over {all_of(list(frontier['curves']))}"
    )
    return picture(parts, titles, list(lines), aria)


def points(frontiers: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names of all metrics that are points of curves."""
    curves = [curve for frontier in frontiers for curve in frontier["curves"].values()]
    return {name for curve in curves for _, *names in curve for name in names}


class Point(NamedTuple):
    """A variant's values at a setting."""

    setting: float
    quality: Mapping[str, Any]
    coverage: Mapping[str, Any]


def curves_of(variant: str, curves: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, list[Point]]:
    """What a variant has at the settings of each kind, for the kinds of which it has any."""
    found = {}
    for kind, points in curves.items():
        values = [(setting, *(metrics[name]["values"].get(variant) for name in names)) for setting, *names in points]
        if all_there := [Point(*value) for value in values if None not in value]:
            found[kind] = all_there
    return found


def places(across: Axis, up: Axis) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Where a value lies in the picture, by each axis."""
    return (
        lambda value: LEFT + across.place(value) * (EDGE - LEFT),
        lambda value: FLOOR - up.place(value) * (FLOOR - TOP),
    )


def group(name: str, variants: Sequence[str], marks: str, height: float) -> str:
    """A variant's marks, in its colour, and its name at a height."""
    number = variants.index(name)
    label = (
        f'<text class="name" stroke="none" x="{EDGE + 12}" y="{height + 4:.1f}">{html.escape(shortened(name))}</text>'
    )
    colour = f'stroke="var(--c{number % 10})" fill="var(--c{number % 10})"'
    return f'<g data-variant="{number}" {colour}>{marks}{label}</g>'


def picture(parts: Sequence[str], titles: Sequence[Mapping[str, str]], names: Sequence[str], aria: str) -> str:
    """The SVG; titles: of the quality, upwards, and of the coverage."""
    middle = (TOP + FLOOR) / 2
    words = [
        f'<text x="{(LEFT + EDGE) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{titles[1]["across"]}</text>',
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{titles[0]["up"]}</text>',
    ]
    width = EDGE + 20 + CHARACTER * max(len(shortened(name)) for name in names)
    box = f'viewBox="0 0 {width:.0f} {HEIGHT}" role="img" aria-label="{html.escape(aria)}"'
    return f'<svg class="plane" {box}>{"".join([*parts, *words])}</svg>'


def standalone(drawn: str, style: str) -> str:
    """What `draw` returns as a file of its own. style: the sheet of the page that it would stand in."""
    opened = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return opened.replace(">", f"><style>{style} text {{ font-family: system-ui, sans-serif }}</style>", 1)


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def frame(across: Axis, up: Axis) -> list[str]:
    """Grid lines with their numbers."""
    x, y = places(across, up)
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


def title(name: str, unit: str, better: str | None) -> dict[str, str]:
    """A metric, its unit and an arrow to where it is better, by the axis that it stands at."""
    arrows = {"higher": {"across": " → better", "up": " ↑ better"}, "lower": {"across": " ← better", "up": " ↓ better"}}
    found = arrows.get(better or "", {"across": "", "up": ""})
    return {axis: html.escape(f"{spoken(name)}, {unit}{arrow}") for axis, arrow in found.items()}


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
