"""Times a step of each variant of a config's sweep, side by side: python -m launch.benchmark --config configs/x.py

`python -m launch.benchmark --suite=steps|limit|peers|growth|compile` times works of fixed shapes: launch/suites. Peers
are those of requirements-bench.txt and, with --tensorflow=PYTHON, of requirements-bench-tensorflow.txt.
`python -m launch.benchmark reliability` measures how long an interrupted run takes to go on: launch/reliability.py.

All variants are compiled, then take turns on the same batches, so that what else the machine does meets all of them.
What is printed are medians, and their ratios to the first variant. Nothing is trained and no workdir is touched; with
config.init_from the parameters are those of a run.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ml_collections import ConfigDict

from gentrain.errors import GentrainError
from gentrain.options import check
from launch import cli, reliability
from launch.suites import suite

TURNS = 9
STEPS = 3  # of a variant in each turn


@dataclass
class Timing:
    """A variant's compiled step, where it stands, and what was measured."""

    update: Callable
    state: Any
    batches: list[Any]
    wall_ms: list[float] = field(default_factory=list)  # a step, by turn
    cpu_ms: list[float] = field(default_factory=list)
    sums: list[Any] = field(default_factory=list)  # of every step


def main(argv: list[str]) -> int:
    """The command as a function; returns the exit code."""
    try:
        if cli.asks_for_help(argv):
            print(__doc__)
            return 0
        if argv[1:] == ["reliability"]:
            return reliability.main()
        if any(argument.startswith("--suite") for argument in argv):
            return suite.main(argv[1:])
        benchmark(cli.parse(argv).config)
    except GentrainError as error:
        cli.say(f"{type(error).__name__}: {error}")
        return error.exit_code
    return 0


def benchmark(config: ConfigDict) -> None:
    """Prints a row a variant: ms a step of wall and of CPU time, both as ratios to the first, and a step's metrics."""
    timings = {}
    for name, variant in (check.variants(config) or {"": config}).items():
        timings[name] = compile_variant(variant)
        print(f"compiled {name}", file=sys.stderr)
    for _ in range(TURNS):
        for timing in timings.values():
            take_turn(timing)
    show(timings)


def compile_variant(config: ConfigDict) -> Timing:
    """A variant after its first step, which compiles."""
    import jax

    from gentrain import players, program, sharding
    from gentrain.datasets import build

    # The tokenizer, too, is that of the run that gives the parameters, where one run gives them all.
    one_run = isinstance(config.init_from, str) and config.init_from
    workdir = Path(config.init_from) if one_run else None
    data = build.build(config, workdir)
    built = program.build(config, data.spec)
    state = built.init()
    for player, given in players.init_from(config, built, data, state, workdir or Path())[0].items():
        (state.frozen if player in state.frozen else state.params)[player] = given
    batches = [sharding.put(data.train.batch(step), built.mesh, config.data.batch_size) for step in range(STEPS)]
    state, _ = jax.block_until_ready(built.update(state, batches[0]))
    return Timing(built.update, state, batches)


def take_turn(timing: Timing) -> None:
    """Times STEPS steps."""
    import jax

    wall_before, cpu_before = time.perf_counter(), time.process_time()
    for batch in timing.batches:
        timing.state, sums = timing.update(timing.state, batch)
        timing.sums.append(sums)
    jax.block_until_ready(timing.state)
    timing.wall_ms.append(1e3 * (time.perf_counter() - wall_before) / STEPS)
    timing.cpu_ms.append(1e3 * (time.process_time() - cpu_before) / STEPS)


def show(timings: dict[str, Timing]) -> None:
    """Prints the table."""
    import jax

    from gentrain import sums

    first = next(iter(timings.values()))
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, medians of {TURNS} turns of {STEPS} steps")
    print(f"{'wall ms':>9} {'ratio':>6} {'CPU ms':>9} {'ratio':>6}  variant")
    for name, timing in timings.items():
        means = {key: sums.mean(value) for key, value in sums.add(timing.sums).items()}
        metrics = ", ".join(f"{key.partition('/')[2]} {means[key]:.4g}" for key in means if says_what_was_done(key))
        wall, cpu = median(timing.wall_ms), median(timing.cpu_ms)
        wall_ratio, cpu_ratio = wall / median(first.wall_ms), cpu / median(first.cpu_ms)
        numbers = f"{wall:9.1f} {wall_ratio:6.2f} {cpu:9.1f} {cpu_ratio:6.2f}"
        print(f"{numbers}  {name}{f' ({metrics})' if metrics else ''}")
        assert all(math.isfinite(mean) for mean in means.values())


def says_what_was_done(key: str) -> bool:
    """Whether a metric says what a step did, rather than how far it has learned."""
    return key.rpartition("/")[2] not in ("loss", "nll", "grad_norm", "learning_rate", "skipped", "far")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
