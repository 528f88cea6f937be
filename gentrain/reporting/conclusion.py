"""The conclusion of a report: two or three sentences made from its numbers, which claim no more than those bear out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gentrain.reporting.comparison import Content

SHORT = {"nll": "NLL", "kl": "KL", "js": "JS", "njs": "JS", "bleu": "BLEU", "auc": "AUC", "mmd": "MMD", "sd": "SD"}
MANY = 3  # variants that a sentence names; more are counted
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NAMED = 3  # metrics that a sentence names; others are counted


def sentences(content: Content) -> list[str]:
    """Who is best, who is tied, who is worst, and how sure that is; of one variant, what it reached."""
    if not content["variants"]:
        return ["No run has numbers yet."]
    if not any(metric["values"] for metric in content["metrics"].values()):
        return ["Nothing has been measured on held-out data yet."]
    if len(content["variants"]) == 1:
        return [reached(content), certainty(content)]
    if not content["same_data"]:
        return ["These runs learn from different data, so that none of them is called the best."]
    ranked = {name: metric for name, metric in content["metrics"].items() if metric["main"] and metric["ranking"]}
    ranked = {name: metric for name, metric in ranked.items() if len(metric["ranking"]["order"]) > 1}
    if not ranked:
        return ["Nothing that has a better direction was measured of two variants.", certainty(content)]
    said = [bests(ranked), ties(ranked, list(content["variants"])), worsts(ranked), leads(ranked)]
    return [capital(sentence) + "." for sentence in said if sentence] + [certainty(content)]


def bests(ranked: Content) -> str:
    """'likelihood is best on valid NLL (2.17 nats/char, 0.13 [0.11, 0.15] less than the next, …)'."""
    wins: dict[str, list[str]] = {}
    for name, metric in ranked.items():
        if best := metric["ranking"]["best"]:
            wins.setdefault(best, []).append(name)
    parts = []
    for variant, names in sorted(wins.items(), key=lambda win: -len(win[1])):
        parts.append(f"{called(variant)} is best on {listed([margin(names[0], ranked), *map(spoken, names[1:])])}")
    return "; ".join(parts)


def margin(name: str, ranked: Content) -> str:
    """What the first of a metric reached, and by how much it is ahead of the next."""
    metric = ranked[name]
    first, second = metric["ranking"]["order"][:2]
    ahead = metric["ranking"]["differences"][second]
    reach = quantity(metric["values"][first]["mean"], metric["unit"], spread(ahead))
    less = "less" if ahead["mean"] < 0 else "more"
    sizes = sorted(abs(ahead[end]) for end in ("low", "high") if ahead[end] is not None)
    shown = digits(abs(ahead["mean"]), spread(ahead))
    interval = f" [{', '.join(digits(size, spread(ahead)) for size in sizes)}]" if sizes else ""
    return f"{spoken(name)} ({reach}, {shown}{interval} {less} than the next, {called(second)})"


def ties(ranked: Content, variants: Sequence[str]) -> str:
    """'the three adversarial variants are tied on …'."""
    tied: dict[tuple[str, ...], list[str]] = {}
    for name, metric in ranked.items():
        if names := metric["ranking"]["tied"]:
            tied.setdefault(tuple(variant for variant in variants if variant in names), []).append(name)
    parts = [
        f"{together(names, variants)} are tied for the best {listed([spoken(name) for name in metrics])}"
        for names, metrics in tied.items()
    ]
    return "; ".join(parts)


def together(names: Sequence[str], variants: Sequence[str]) -> str:
    """Several variants in as few words as there are: 'the three adversarial variants'."""
    if len(names) == len(variants):
        return "both variants" if len(names) == 2 else f"all {counted(len(names))} variants"
    kinds = {name.split(", ")[0] for name in names}
    if len(names) > 1 and len(kinds) == 1:
        kind = kinds.pop()
        if sum(name.split(", ")[0] == kind for name in variants) == len(names):
            return f"the {counted(len(names))} {kind} variants"
    if len(names) > MANY:
        return f"{counted(len(names))} of {counted(len(variants))} variants"
    return all_of([called(name) for name in names])


def worsts(ranked: Content) -> str:
    """'scheduled sampling is worst on …'."""
    losses: dict[str, list[str]] = {}
    for name, metric in ranked.items():
        if worst := metric["ranking"]["worst"]:
            losses.setdefault(worst, []).append(name)
    parts = []
    for variant, names in losses.items():
        shown = [
            f"{spoken(name)} ({quantity(ranked[name]['values'][variant]['mean'], ranked[name]['unit'])})"
            for name in names
        ]
        parts.append(f"{called(variant)} is worst on {listed(shown)}")
    return "; ".join(parts)


def leads(ranked: Content) -> str:
    """Who is ahead where there are too few seeds to say that anyone is best."""
    ahead: dict[str, list[str]] = {}
    for name, metric in ranked.items():
        ranking = metric["ranking"]
        if not ranking["best"] and not ranking["tied"]:
            ahead.setdefault(ranking["order"][0], []).append(name)
    parts = [
        f"{called(variant)} is ahead on {listed([margin(names[0], ranked), *map(spoken, names[1:])])}"
        for variant, names in sorted(ahead.items(), key=lambda lead: -len(lead[1]))
    ]
    return f"{'; '.join(parts)}; too few seeds to be sure" if parts else ""


def reached(content: Content) -> str:
    """What one variant reached, for a page of a single run."""
    (variant,) = content["variants"]
    steps = [run["evaluated"] for run in content["runs"].values() if run["evaluated"] is not None]
    shown = [
        f"{spoken(name)} {quantity(value['mean'], metric['unit'], within_spread(value))}{beside(name, content)}"
        for name, metric in content["metrics"].items()
        if (value := metric["values"].get(variant)) and metric["main"]
    ]
    if not shown:
        shown = [
            f"{spoken(name)} {quantity(metric['values'][variant]['mean'], metric['unit'])}"
            for name, metric in content["metrics"].items()
            if variant in metric["values"]
        ][:3]
    return capital(f"{called(variant)} reached {listed(shown, 5)} after {max(steps):,} steps.")


def beside(name: str, content: Content) -> str:
    """The level that a number is to be compared with: ' (real data: 0.21)'."""
    entry = content["metrics"][name]
    (variant,) = content["variants"]
    if "floor" in entry["values"][variant]:
        return f" (real data: {digits(entry['values'][variant]['floor'])})"
    levels = content["curves"][name]["levels"] if name in content["curves"] else {}
    value = entry["values"][variant]["mean"]
    found = []
    for level, reference in levels.items():
        better = (value < reference) == (entry["better"] == "lower")
        found.append(f"{'better' if better else 'worse'} than {spoken(level)}, {digits(reference)}")
    return f" ({'; '.join(found)})" if found else ""


def certainty(content: Content) -> str:
    """How many seeds there are, what the intervals are, and whether the budgets were equal."""
    counts = sorted({len(variant["seeds"]) for variant in content["variants"].values()})
    if counts[-1] == 1:
        many = len(content["variants"]) > 1
        seeds = "One seed each: no interval, so the order may be chance" if many else "One seed: no interval"
    else:
        each = (
            f"{counted(counts[-1])} seeds"
            if len(counts) == 1
            else f"{counted(counts[0])} to {counted(counts[-1])} seeds"
        )
        kind = " each, paired 95 % intervals" if len(content["variants"]) > 1 else ", 95 % intervals"
        seeds = capital(f"{each}{kind}")
    said = [seeds, equality(content) if content["budgets"] else "", missing(content)]
    return "; ".join(filter(None, said)) + "."


def missing(content: Content) -> str:
    """Which of the main numbers a variant has not, be it that nothing measures them or that they were not finite."""
    lacks = [
        f"{spoken(name)} of {together(without, list(content['variants']))}"
        for name, metric in content["metrics"].items()
        if metric["main"] and (without := [name for name in content["variants"] if name not in metric["values"]])
    ]
    return f"there is no {listed(lacks)}" if lacks else ""


def equality(content: Content) -> str:
    """'equal steps and examples; device-seconds of training differ 5.7 times'."""
    titles = {"steps": "steps", "examples": "examples", "device_seconds": "device-seconds of training"}
    equal, unequal = [], []
    for kind, budget in content["budgets"].items():
        if budget["ratio"] < 1.1:
            equal.append(titles[kind] + ("" if budget["ratio"] == 1 else " (within 10 %)"))
        else:
            least = min(budget["spent"], key=budget["spent"].__getitem__)
            most = max(budget["spent"], key=budget["spent"].__getitem__)
            unequal.append(
                f"{titles[kind]} differ up to {budget['ratio']:.1f}-fold ({called(least)} least, {called(most)} most)"
            )
    return "; ".join([*([f"equal {all_of(equal)}"] if equal else []), *unequal])


def called(variant: str) -> str:
    """A variant in a sentence, whose commas are not its own: 'adversarial with π = 0.5'."""
    first, *others = variant.split(", ")
    return f"{first} with {all_of(others)}" if others else first


def spoken(name: str) -> str:
    """A metric as a person says it: 'valid NLL', 'exposure reverse KL'."""
    parts = name.replace("/", " ").replace("_", " ").split()
    return " ".join(SHORT.get(part, part) for part in parts)


def quantity(value: float, unit: str, around: float | None = None) -> str:
    """A number with its unit, where that is a unit and no description: '2.17 nats/char'."""
    plain = " " in unit or unit in ("share", "ratio", "number", "probability", "norm")
    return digits(value, around) if plain else f"{digits(value, around)} {unit}"


def digits(value: float | None, around: float | None = None) -> str:
    """A number to three digits, or to two of the half-width of its interval, but to no more than four."""
    if value is None or not math.isfinite(value):
        return "-"
    size = abs(value)
    if around and math.isfinite(around):
        most = 3 - math.floor(math.log10(size)) if size else 6
        decimals = min(max(1 - math.floor(math.log10(around)), 0), max(most, 0), 6)
        return f"{value:,.{decimals}f}"
    if size >= 1000 or value == int(value):
        return f"{value:,.0f}"
    if size < 0.001:
        return f"{value:.2e}"
    return f"{value:,.{max(2 - math.floor(math.log10(size)), 0)}f}"


def spread(interval: Mapping[str, Any]) -> float | None:
    """Half the width of an interval; None where there is none."""
    if interval["low"] is None or interval["high"] == interval["low"]:
        return None
    return (interval["high"] - interval["low"]) / 2


def within_spread(value: Mapping[str, Any]) -> float | None:
    """The same of a variant's value, by seeds or else within the run."""
    if value["low"] is None and value["within"]:
        return spread({"low": value["within"][0], "high": value["within"][1]})
    return spread(value)


def listed(parts: Sequence[str], most: int = NAMED) -> str:
    """The first few of a list, and how many more there are."""
    more = len(parts) - most
    return all_of(parts if more < 2 else [*parts[:most], f"{counted(more)} more"])


def all_of(parts: Sequence[str]) -> str:
    """'a, b and c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].isascii() else text  # a capital π is another letter
