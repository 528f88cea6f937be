"""Means kept as two halves, so that they may be added over microbatches, devices, hosts and batches."""

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

SPLIT = "(train|valid|test)"


class Sum(NamedTuple):
    """A mean kept as its two halves, so that it may be added over microbatches, devices, hosts and batches.

    total: e.g. nats summed over tokens; weight: e.g. tokens. The mean is total / weight.
    """

    total: jax.Array | float
    weight: jax.Array | float


def add(sums: Iterable[Mapping[str, Sum]]) -> dict[str, Sum]:
    """Adds the sums of several steps or batches, name by name, in double precision on the host."""
    added: dict[str, Sum] = {}
    for part in jax.device_get(list(sums)):
        for name, (total, weight) in part.items():
            before = added.get(name, Sum(0.0, 0.0))
            added[name] = Sum(before.total + float(total), before.weight + float(weight))
    return added


def paced(results: Iterable[Any]) -> Iterator[Any]:
    """The results of programs on the device, of which at most one is left to run ahead. Otherwise the inputs of a whole
    split would pile up there, and a step that hangs would not be seen as one."""
    previous = None
    for result in results:
        yield result
        jax.block_until_ready(previous)
        previous = result


def mean(value: Sum) -> float:
    """total / weight, or nan where nothing was weighed."""
    return float(value.total / value.weight) if value.weight else math.nan


class Metric(NamedTuple):
    """What a metric means: its unit, which direction is better ('lower', 'higher', or None for neither), its meaning.

    Metrics are declared by name, in which `<split>` stands for a split of the data and any other `<word>` for anything,
    as '<split>/nll' or 'exact/njs@<pi>'.
    restates: whether it says in another unit what another metric says. level: whether it is there for others to be
    compared with, and the same at every step.
    """

    unit: str
    better: str | None
    meaning: str
    restates: bool = False
    level: bool = False


def declared(name: str, metrics: Mapping[str, Metric]) -> tuple[str, Metric] | None:
    """The declaration of a metric, with the name it is declared under; None where nothing declares it."""
    if name in metrics:
        return name, metrics[name]
    for pattern, metric in metrics.items():
        if "<" in pattern and pattern_regex(pattern).fullmatch(name):
            return pattern, metric
    return None


@functools.cache
def pattern_regex(pattern: str) -> re.Pattern:
    """The regular expression of the names that a declared name with `<words>` stands for."""
    literals_and_words = re.split(r"(<\w+>)", pattern)  # in turns, a literal first
    parts = [re.escape(literals_and_words[0])]
    for word, literal in zip(literals_and_words[1::2], literals_and_words[2::2], strict=True):
        parts += [SPLIT if word == "<split>" else r"[^/]+", re.escape(literal)]
    return re.compile("".join(parts))
