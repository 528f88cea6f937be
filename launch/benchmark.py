"""Times a step of each variant of a config's sweep, side by side: python -m launch.benchmark --config configs/x.py

All variants are compiled, then take turns on the same batches, so that what else the machine does meets all of them;
told are medians, as ratios to the first variant too. Nothing is trained and no workdir is touched; with
config.init_from the parameters are those of a run.
"""

import math
import sys
import time
from pathlib import Path
from statistics import median

from ml_collections import ConfigDict

from gentrain.errors import GentrainError
from gentrain.options import check
from launch import cli

TURNS, STEPS = 9, 3


def main(argv: list[str]) -> int:
    """The command as a function; returns the exit code."""
    try:
        if cli.asks_for_help(argv):
            print(__doc__)
            return 0
        benchmark(cli.parse(argv).config)
    except GentrainError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def benchmark(config: ConfigDict) -> None:
    """Prints a row a variant: ms a step of wall and of CPU time, both as ratios to the first, and a step's metrics."""
    import jax

    from gentrain import players, program, sharding, sums
    from gentrain.datasets import build

    runs = {}
    for name, variant in (check.variants(config) or {"": config}).items():
        source = build.build(variant, Path(variant.init_from) if variant.init_from else None)
        built = program.build(variant, source.spec)
        state = built.init()
        state.params.update(players.init_from(variant.init_from, built.state)[0])
        batches = [sharding.put(source.train.batch(i), built.mesh, variant.data.batch_size) for i in range(STEPS)]
        state, _ = jax.block_until_ready(built.update(state, batches[0]))
        runs[name] = [built.update, state, batches, [], [], []]
        print(f"compiled {name}", file=sys.stderr)
    for _ in range(TURNS):
        for run in runs.values():
            update, state, batches, wall, cpu, steps = run
            before = time.perf_counter(), time.process_time()
            for batch in batches:
                state, found = update(state, batch)
                steps.append(found)
            run[1] = jax.block_until_ready(state)
            wall.append(1e3 * (time.perf_counter() - before[0]) / STEPS)
            cpu.append(1e3 * (time.process_time() - before[1]) / STEPS)
    first = next(iter(runs.values()))
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, medians of {TURNS} turns of {STEPS} steps")
    print(f"{'wall ms':>9} {'ratio':>6} {'CPU ms':>9} {'ratio':>6}  variant")
    for name, (*_, wall, cpu, steps) in runs.items():
        means = {key: sums.mean(total) for key, total in sums.add(steps).items()}
        details = ", ".join(f"{key.partition('/')[2]} {means[key]:.4g}" for key in means if reported(key))
        ratios = [median(times) / median(of_first) for times, of_first in ((wall, first[3]), (cpu, first[4]))]
        numbers = f"{median(wall):9.1f} {ratios[0]:6.2f} {median(cpu):9.1f} {ratios[1]:6.2f}"
        print(f"{numbers}  {name}{f' ({details})' if details else ''}")
        assert all(math.isfinite(value) for value in means.values())


def reported(key: str) -> bool:
    """Whether a metric says what a step did, rather than how far it has learned."""
    return key.rpartition("/")[2] not in ("loss", "nll", "grad_norm", "learning_rate", "skipped")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
