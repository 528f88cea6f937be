"""python -m launch.benchmark --suite=NAME [--only=TEXT] [--cores=1] [--tensorflow=PYTHON] [--out=DIR]

NAME is one of
    steps   gentrain's own works: time, temporary memory, seconds to trace and compile, and the share of the rate at
            which this core multiplies matrices
    limit   of these the training steps alone, and so how near each comes to that rate
    peers   the same works by the peers that are installed (requirements-bench.txt), in turns
    growth  a Transformer and an LSTM with each size doubled, scheduled sampling with its length and its passes, the
            class prior, simulated devices, and the exponents of time, memory, and tracing and compiling
    compile seconds to the first step of every shipped config, cold and warm: launch/first_step.py
--only: works whose name has TEXT in it; --cores: numbers of the cores that all are pinned to. --tensorflow: the
interpreter of an environment of requirements-bench-tensorflow.txt, for the peers that need one of their own. DIR gets a
table, JSON and a picture. One core is the default: there ratios say what the code does, and not how it is split.
"""

import argparse
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gentrain import files
from gentrain.errors import ConfigError
from launch import cli, first_step
from launch.suites import timing
from launch.suites.works import ADVERSARIAL, NARROW, SCHEDULED, SMALL, WORKS, Work

COLUMNS = {
    "work": "<36", "contender": "<15", "parameters": ">11,", "cpu_ms": ">9.1f", "wall_ms": ">9.1f", "speed": ">6.2f",
    "target": ">6.2f", "of_matmul_rate": ">6.0%", "temporary_mb": ">9.1f", "trace_s": ">7.2f", "compile_s": ">7.2f",
}  # fmt: skip
EXACT = {**SCHEDULED, "scheduled_sampling.mode": "exact", "scheduled_sampling.window": 64}
SHORT = SMALL._replace(length=64)
PASSES, PRIOR, DEVICES = "scheduled_sampling.max_passes", "objective.real_prior", "devices"
GROWN = {  # what is trained, from which shape, with which options, and how many times each size is doubled
    "transformer": (SHORT, {}, {"batch": 4, "length": 5, "width": 3, "vocab": 4, DEVICES: 3}),
    "lstm": (NARROW._replace(vocab=512, width=64), {}, {"batch": 4, "length": 4, "width": 4, "vocab": 4}),
    "scheduled sampling, exact": (SHORT, EXACT, {"length": 3, PASSES: 4}),
    "scheduled sampling, in sequence": (SHORT, SCHEDULED, {"length": 3}),
    "adversarial": (NARROW, ADVERSARIAL, {PRIOR: 3}),
}
FIRST = {PASSES: 1, PRIOR: 0.1, DEVICES: 1}  # where sizes begin that a shape does not have


def main(arguments: Sequence[str]) -> int:
    """The command as a function; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m launch.benchmark", usage=__doc__)
    parser.add_argument("--suite", choices=("steps", "limit", "peers", "growth", "compile"), required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--cores", default="0")
    parser.add_argument("--tensorflow", default=sys.executable)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if not shutil.which(options.tensorflow):
        raise ConfigError(
            f"--tensorflow={options.tensorflow} is no program; expected the python of an environment of"
            " requirements-bench-tensorflow.txt"
        )
    if options.suite == "compile":
        return first_step.main(["first_step", *(str(file) for file in cli.config_files() if options.only in str(file))])
    cores = [int(core) for core in options.cores.split(",")]
    works = {name: work for name, work in WORKS.items() if options.only in name}
    if options.suite == "limit":
        works = {name: work for name, work in works.items() if work.does == "train"}
    rows, lines = [], [header()]
    print(lines[0])
    tensorflow = options.tensorflow if options.suite == "peers" else None
    for row in grow(cores, options.only) if options.suite == "growth" else race(works, cores, tensorflow):
        rows.append(row)
        lines.append(line(row))
        print(lines[-1], flush=True)
    if options.suite == "growth":
        for text in exponents(rows):
            lines.append(text)
            print(text)
    if options.out:
        from launch.suites import pictures

        options.out.mkdir(parents=True, exist_ok=True)
        files.write_json(options.out / f"{options.suite}.json", rows)
        (options.out / f"{options.suite}.txt").write_text("\n".join(lines) + "\n")
        pictures.draw(options.suite, rows, options.out / f"{options.suite}.png")
    return 0


def race(works: dict[str, Work], cores: Sequence[int], tensorflow: str | None) -> Iterator[dict[str, Any]]:
    """A row for each contender of each work; speed: by gentrain's CPU time, that of the contender.

    tensorflow: the interpreter of the peers that need TensorFlow; None: gentrain races alone.
    """
    rate = matmul_rate(cores)
    for name, work in works.items():
        peers = work.peers if tensorflow else ()
        rows = timing.race(("gentrain", *peers), work, cores, tensorflow=tensorflow or sys.executable)
        ours = rows[0]
        if work.does == "train":
            ours["of_matmul_rate"] = work.shape.gflop / (1e-3 * ours["cpu_ms"]) / rate
        for row in rows:
            if "cpu_ms" in row and row is not ours:
                row["speed"] = row["cpu_ms"] / ours["cpu_ms"]
                row["target"] = work.target if row["contender"] == work.peers[0] else 0.0
            yield {"work": name, **row}


def matmul_rate(cores: Sequence[int]) -> float:
    """GFLOP a CPU second of a large matmul."""
    row = timing.race(("matmul",), next(iter(WORKS.values())), cores)[0]
    return row["gflop"] / (1e-3 * row["cpu_ms"])


def grow(cores: Sequence[int], only: str) -> Iterator[dict[str, Any]]:
    """Rows of training steps in which one size is doubled again and again."""
    for family, (base, options, sizes) in GROWN.items():
        for size, doublings in sizes.items():
            if only not in f"{family}, {size}":
                continue
            for doubling in range(doublings + 1):
                value = (FIRST[size] if size in FIRST else getattr(base, size)) * 2**doubling
                shape = base if size in FIRST else base._replace(**{size: value})
                work = Work("train", shape, {**options, size: value} if size in (PASSES, PRIOR) else options)
                row = timing.race(("gentrain",), work, cores, value if size == DEVICES else 1)[0]
                yield {"work": f"{family}, {size} {value}", "family": family, "size": size, "at": value, **row}


def exponents(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each size: time, temporary memory, and seconds to trace and compile ~ size^a, over the upper half of
    its range."""
    for family, size in dict.fromkeys((row["family"], row["size"]) for row in rows):
        own = [row for row in rows if (row["family"], row["size"]) == (family, size)]
        low, high = own[len(own) // 2], own[-1]
        octaves = math.log2(high["at"] / low["at"]) or math.nan
        measured = (("cpu_ms",), ("temporary_mb",), ("trace_s", "compile_s"))
        ratios = [sum(high[name] for name in names) / sum(low[name] for name in names) for names in measured]
        time, memory, compiling = (math.log2(ratio) / octaves for ratio in ratios)
        yield (
            f"{family}, {size}: time ~ {size}^{time:.2f}, temporary memory ~ {size}^{memory:.2f}, tracing and compiling"
            f" ~ {size}^{compiling:.2f}"
        )


def header() -> str:
    return " ".join(f"{name:{form[0]}{form[1:].split('.')[0].strip(',')}}" for name, form in COLUMNS.items())


def line(row: dict[str, Any]) -> str:
    """A row as text; what is not known is left out."""
    if "missing" in row:
        return f"{row['work']:<36} {row['contender']:<15} not installed: {row['missing']}"
    cells = []
    for name, form in COLUMNS.items():
        width = form[1:].split(".")[0].strip(",")
        cells.append(f"{row[name]:{form}}" if row.get(name) else " " * max(int(width), len(name)))
    return " ".join(cells).rstrip()
