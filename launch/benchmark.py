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

from gentrain import config as config_rules
from gentrain.errors import GentrainError
from launch.__main__ import parse

TURNS, STEPS = 9, 3


def main(argv: list[str]) -> int:
    """The command as a function; returns the exit code."""
    try:
        _, config, _ = parse(argv)
        benchmark(config)
    except GentrainError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def benchmark(config: ConfigDict) -> None:
    """Prints a row a variant: ms a step of wall and of CPU time, both as ratios to the first, and a step's metrics."""
    import jax

    from gentrain import data, metrics, program, sharding
    from gentrain.checkpoint import restore_params

    runs = {}
    for name, variant in (config_rules.variants(config) or {"": config}).items():
        source = data.build(variant, Path(variant.init_from) if variant.init_from else None)
        built = program.build(variant, source.spec)
        state = built.init()
        if variant.init_from:
            state.params.update(restore_params(Path(variant.init_from) / "checkpoints", built.state.params)[1])
        batches = [sharding.put(source.train.batch(i), built.mesh, variant.data.batch_size) for i in range(STEPS)]
        state, _ = jax.block_until_ready(built.update(state, batches[0]))
        runs[name] = [built.update, state, batches, [], [], []]
        print(f"compiled {name}", file=sys.stderr)
    for _ in range(TURNS):
        for run in runs.values():
            update, state, batches, wall, cpu, sums = run
            before = time.perf_counter(), time.process_time()
            for batch in batches:
                state, found = update(state, batch)
                sums.append(found)
            run[1] = jax.block_until_ready(state)
            wall.append(1e3 * (time.perf_counter() - before[0]) / STEPS)
            cpu.append(1e3 * (time.process_time() - before[1]) / STEPS)
    first = next(iter(runs.values()))
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, medians of {TURNS} turns of {STEPS} steps")
    print(f"{'wall ms':>9} {'ratio':>6} {'CPU ms':>9} {'ratio':>6}  variant")
    for name, (*_, wall, cpu, sums) in runs.items():
        means = {key.partition("/")[2]: metrics.mean(total) for key, total in metrics.add(sums).items()}
        told = ", ".join(f"{key} {means[key]:.4g}" for key in ("passes", "unresolved", "replaced") if key in means)
        ratios = [median(times) / median(own) for times, own in ((wall, first[3]), (cpu, first[4]))]
        numbers = f"{median(wall):9.1f} {ratios[0]:6.2f} {median(cpu):9.1f} {ratios[1]:6.2f}"
        print(f"{numbers}  {name}{f' ({told})' if told else ''}")
        assert all(math.isfinite(value) for value in means.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
