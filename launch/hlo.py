"""What a compiled program sends between devices, read from its HLO: how often, how much, and along which mesh axes."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

# What lines of HLO look like. A collective: '%y = f32[16]{0} all-reduce-start(%x), replica_groups=[2,4]<=[8], …'.
COLLECTIVE = re.compile(rf" = (?P<type>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\) -> .*\{$")
CALL = re.compile(r"(?:calls|to_apply|body|condition|\w+_computations?)=(?:\{(?P<many>[^}]*)\}|%?(?P<one>[\w.-]+))")
TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
ARRAY = re.compile(r"\b(?P<type>pred|[a-z]+\d+\w*)\[(?P<shape>[\d,]*)\]")

# Which devices talk to one another is written in three ways: as lists {{0,1},{2,3}}; as [2,4]<=[8], the numbers 0, 1, …
# in the right shape, maybe transposed, cut into the left one; and as axes of a mesh, mesh['a'=2,'b'=4] {'b'}.
LISTED_GROUPS = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}")
IOTA_GROUPS = re.compile(r"replica_groups=\[(?P<groups>[\d,]+)\]<=\[(?P<shape>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?")
MESH_GROUPS = re.compile(
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
    computations, entry = split_computations(text)
    calls: dict[tuple[str, str], int] = {}
    sent: dict[tuple[str, str], int] = {}
    unknown_loops: set[str] = set()

    def walk(name: str, times: int, loops: tuple[str, ...]) -> None:
        """Counts a computation that runs so many times, within these loops of unknown trip counts."""
        for line in computations.get(name, ()):
            if collective := COLLECTIVE.search(line):
                key = collective["kind"], axes_of(line, mesh)
                calls[key] = calls.get(key, 0) + times
                sent[key] = sent.get(key, 0) + times * bytes_sent(collective, group_size(line, mesh))
                unknown_loops.update(loops)
            is_loop = " while(" in line
            trip_count = TRIP_COUNT.search(line) if is_loop else None
            inner_times = times * int(trip_count[1]) if trip_count else times
            inner_loops = (*loops, line) if is_loop and not trip_count else loops
            for called in called_by(line):
                walk(called, inner_times, inner_loops)

    walk(entry, 1, ())
    rows = [Traffic(kind, axes, calls[kind, axes], sent[kind, axes]) for kind, axes in calls]
    return sorted(rows, key=lambda row: (KINDS.index(row.kind), row.axes)), len(unknown_loops)


def split_computations(text: str) -> tuple[dict[str, list[str]], str]:
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
    """Names of the computations that a line calls."""
    for call in CALL.finditer(line.partition(", metadata=")[0]):
        for name in (call["many"] or call["one"]).split(","):
            yield name.strip(" %")


def bytes_sent(collective: re.Match, size: int) -> int:
    """Bytes that one of `size` devices sends in a ring."""
    kind = collective["kind"]
    # An asynchronous operation's type also has scalars of its own.
    arrays = [array for array in ARRAY.finditer(collective["type"]) if array[0] != "u32[]" or not collective["start"]]
    if collective["start"] and kind != "all-reduce":
        arrays = arrays[len(arrays) // 2 :]  # what is sent stands before what comes of it
    result = sum(array_bytes(array) for array in arrays)
    shares = {"all-reduce": 2 * (size - 1) / size, "reduce-scatter": size - 1, "collective-permute": 1}
    return round(result * shares.get(kind, (size - 1) / size))


def array_bytes(array: re.Match) -> int:
    """Bytes of an array, from its type and shape."""
    bits = 8 if array["type"] == "pred" else int(re.findall(r"\d+", array["type"])[0])
    return math.prod(integers(array["shape"])) * bits // 8


def integers(text: str | None) -> list[int]:
    """All integers in a text, as '[4,2]'; none where there is no text."""
    return [int(digits) for digits in re.findall(r"\d+", text or "")]


def groups(line: str, devices: int) -> np.ndarray:
    """The devices that talk to one another, by their number: (groups, devices of a group); pairs of a permutation."""
    if match := LISTED_GROUPS.search(line):
        return np.array([integers(group) for group in re.findall(r"\{([\d,]+)\}", match[1])])
    if match := IOTA_GROUPS.search(line):
        return iota(match["shape"], match["order"]).reshape(integers(match["groups"]))
    if match := MESH_GROUPS.search(line):
        listed, shape = match["ids"], match["shape"] or str(devices)
        ids = np.array(integers(listed)) if listed else iota(shape, match["order"])
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match["axes"])}
        return groups_over(match["over"], ids.reshape(list(sizes.values())), list(sizes))
    return np.arange(devices)[None, :]  # replica_groups={}: all of them


def iota(shape: str, order: str | None) -> np.ndarray:
    """Numbers 0, 1, … in this shape, transposed: the form [4,2]T(1,0)."""
    array = np.arange(math.prod(integers(shape))).reshape(integers(shape))
    return array.transpose(integers(order)) if order else array


def groups_over(over: str, ids: np.ndarray, names: list[str]) -> np.ndarray:
    """The groups over some axes of an array of devices: (groups, devices of a group).

    over: names of axes, as "'a','b':(2)4". Of the latter only a part counts: b is 2 * 4 * the rest, and it is the 4.
    """
    parts = {name: integers(part) for name, part in re.findall(r"'([^']+)'(?::(\(\d+\)\d+))?", over)}
    shape: list[int] = []  # every axis as three: before the part, the part, after it
    part_axes: list[int] = []
    for name, size in zip(names, ids.shape, strict=True):
        before, part = parts.get(name) or (1, size)
        if name in parts:
            part_axes.append(len(shape) + 1)
        shape += [before, part, size // (before * part)]
    other_axes = [axis for axis in range(len(shape)) if axis not in part_axes]
    group_size = math.prod(shape[axis] for axis in part_axes)
    return ids.reshape(shape).transpose(other_axes + part_axes).reshape(-1, group_size)


def group_size(line: str, mesh: Mapping[str, int]) -> int:
    """How many devices talk to one another."""
    return groups(line, math.prod(mesh.values())).shape[1]


def axes_of(line: str, mesh: Mapping[str, int]) -> str:
    """The mesh axes along which the devices of a group differ."""
    sizes = tuple(mesh.values())
    places = np.stack(np.unravel_index(groups(line, math.prod(sizes)), sizes))  # (axes, groups, devices of a group)
    differ = (places != places[:, :, :1]).any(axis=(1, 2))
    return "+".join(name for name, differs in zip(mesh, differ, strict=True) if differs) or "-"
