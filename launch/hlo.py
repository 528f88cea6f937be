"""What a compiled program sends between devices, read from its HLO: how often, how much, and along which mesh axes."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
SENDS = re.compile(rf" = (?P<type>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\) -> .*\{$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|\w+_computations?)=(?:\{(?P<many>[^}]*)\}|%?(?P<one>[\w.-]+))")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
ARRAY = re.compile(r"\b(?P<type>pred|[a-z]+\d+\w*)\[(?P<shape>[\d,]*)\]")

EXPLICIT = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}")
IOTA = re.compile(r"replica_groups=\[(?P<groups>[\d,]+)\]<=\[(?P<shape>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?")
NAMED = re.compile(
    r"replica_groups=mesh\[(?P<axes>[^\]]*)\](?:, device_ids=\((?:\[(?P<shape>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?"
    r"|(?P<ids>[\d,]+))\))? \{(?P<over>[^}]*)\}"
)


class Traffic(NamedTuple):
    """All collectives of one kind over the same mesh axes, in one run of the program."""

    kind: str
    axes: str  # those along which its groups reach, 'data+fsdp'; '-' where a device only talks to itself
    calls: int
    sent: int  # bytes, by one device


def traffic(text: str, mesh: Mapping[str, int]) -> tuple[list[Traffic], int]:
    """Collectives by kind and axes, and how many of the loops around them do not tell their trip count.

    mesh: the length of each axis, devices in row-major order of it. What is in a loop counts as often as that runs,
    once where the trip count is not known; every branch of a conditional counts. Bytes are of rings, n devices a
    group: all-gather and all-to-all (n - 1) / n of the result, all-reduce twice that, reduce-scatter n - 1 results.
    """
    computations, entry = split(text)
    found: dict[tuple[str, str], list[int]] = {}
    unknown: set[str] = set()

    def walk(name: str, times: int, loops: tuple[str, ...]) -> None:
        for line in computations.get(name, ()):
            if sends := SENDS.search(line):
                count = found.setdefault((sends["kind"], axes(line, mesh)), [0, 0])
                count[0] += times
                count[1] += times * wire(sends, group_size(line, mesh))
                unknown.update(loops)
            trips = TRIPS.search(line) if " while(" in line else None
            inside = (*loops, line) if " while(" in line and not trips else loops
            for called in called_by(line):
                walk(called, times * int(trips[1]) if trips else times, inside)

    walk(entry, 1, ())
    rows = [Traffic(kind, along, *counts) for (kind, along), counts in found.items()]
    return sorted(rows, key=lambda row: (KINDS.index(row.kind), row.axes)), len(unknown)


def split(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation by its name, and the name of the one that is run."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if begins := COMPUTATION.match(line):
            lines = computations.setdefault(begins["name"], [])
            entry = begins["name"] if begins["entry"] else entry
        else:
            lines.append(line)
    return computations, entry


def called_by(line: str) -> Iterator[str]:
    for called in CALLED.finditer(line.partition(", metadata=")[0]):
        yield from (name.strip(" %") for name in (called["many"] or called["one"]).split(","))


def wire(sends: re.Match, size: int) -> int:
    """Bytes that one of `size` devices sends in a ring."""
    arrays = [array for array in ARRAY.finditer(sends["type"]) if array[0] != "u32[]" or not sends["start"]]
    if sends["start"] and sends["kind"] != "all-reduce":
        arrays = arrays[len(arrays) // 2 :]  # what is sent stands before what comes of it
    result = sum(array_bytes(array) for array in arrays)
    shares = {"all-reduce": 2 * (size - 1) / size, "reduce-scatter": size - 1, "collective-permute": 1}
    return round(result * shares.get(sends["kind"], (size - 1) / size))


def array_bytes(array: re.Match) -> int:
    bits = 8 if array["type"] == "pred" else int(re.findall(r"\d+", array["type"])[0])
    return math.prod(numbers(array["shape"])) * bits // 8


def numbers(text: str | None) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text or "")]


def groups(line: str, devices: int) -> np.ndarray:
    """The devices that talk to one another, by their number: (groups, devices of a group); pairs of a permutation."""
    if found := EXPLICIT.search(line):
        return np.array([numbers(group) for group in re.findall(r"\{([\d,]+)\}", found[1])])
    if found := IOTA.search(line):
        return iota(found["shape"], found["order"]).reshape(numbers(found["groups"]))
    if found := NAMED.search(line):
        ids = np.array(numbers(found["ids"])) if found["ids"] else iota(found["shape"] or str(devices), found["order"])
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found["axes"])}
        return along(ids.reshape(list(sizes.values())), list(sizes), found["over"])
    return np.arange(devices)[None, :]  # replica_groups={}: all of them


def iota(shape: str, order: str | None) -> np.ndarray:
    """Numbers 0, 1, … in this shape, transposed: the form [4,2]T(1,0)."""
    array = np.arange(math.prod(numbers(shape))).reshape(numbers(shape))
    return array.transpose(numbers(order)) if order else array


def along(ids: np.ndarray, names: list[str], over: str) -> np.ndarray:
    """Groups over some axes of an array of devices, or parts of axes: 'a':(2)4 is the middle of a = 2 * 4 * rest."""
    shape: list[int] = []
    moved: list[int] = []
    parts = {name: numbers(part) for name, part in re.findall(r"'([^']+)'(?::(\(\d+\)\d+))?", over)}
    for name, size in zip(names, ids.shape, strict=True):
        before, middle = parts.get(name) or (1, size)
        if name in parts:
            moved.append(len(shape) + 1)
        shape += [before, middle, size // (before * middle)]
    rest = [axis for axis in range(len(shape)) if axis not in moved]
    return ids.reshape(shape).transpose(rest + moved).reshape(-1, math.prod(shape[axis] for axis in moved))


def group_size(line: str, mesh: Mapping[str, int]) -> int:
    return groups(line, math.prod(mesh.values())).shape[1]


def axes(line: str, mesh: Mapping[str, int]) -> str:
    """The mesh axes along which the devices of a group differ."""
    sizes = tuple(mesh.values())
    places = np.stack(np.unravel_index(groups(line, math.prod(sizes)), sizes))  # (axes, groups, devices of a group)
    differ = (places != places[:, :, :1]).any(axis=(1, 2))
    return "+".join(name for name, differs in zip(mesh, differ, strict=True) if differs) or "-"
