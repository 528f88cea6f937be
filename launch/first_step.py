"""How long it takes from the command to the first step: python -m launch.first_step [configs/x.py[:variant] …]

Each config (by default all shipped ones) is started twice in a process of its own: cold, with an empty compilation
cache, and warm, with what the first start left there. Seconds are given for imports, data, tracing and lowering,
compiling, and the step itself. Configs of more parameters than fit a small machine, and those whose data are not there,
are named and passed over.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from gentrain.errors import GentrainError
from gentrain.options import check
from launch import cli

PHASES = ("import", "data", "lower", "compile", "step")
CHILD = "--measure="
MOST_PARAMETERS = 10**8


def main(argv: Sequence[str] | None = None) -> int:
    """The command as a function; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if cli.asks_for_help(argv):
        print(__doc__)
        return 0
    if len(argv) == 2 and argv[1].startswith(CHILD):
        return measure(argv[1].removeprefix(CHILD))
    print(f"{'seconds, cold / warm':<44}" + "".join(f"{phase:>14}" for phase in (*PHASES, "in all")), flush=True)
    for config in argv[1:] or [str(file) for file in cli.config_files()]:
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
            starts = [start(config, environment) for _ in ("cold", "warm")]
        print(f"{config:<44}" + row(*starts), flush=True)
    return 0


def start(config: str, environment: dict[str, str]) -> dict[str, float] | str:
    """Seconds by phase of one start of a config, or why there was none."""
    command = [sys.executable, "-m", "launch.first_step", f"{CHILD}{config}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["?"])[-1]
    return json.loads(done.stdout.splitlines()[-1])


def row(cold: dict[str, float] | str, warm: dict[str, float] | str) -> str:
    """'1.2 / 0.8' for each phase and in all."""
    if isinstance(cold, str) or isinstance(warm, str):
        return f"  {cold if isinstance(cold, str) else warm}"
    columns = [(cold[phase], warm[phase]) for phase in PHASES]
    columns.append((sum(cold.values()), sum(warm.values())))
    return "".join(f"{f'{one:.1f} / {other:.1f}':>14}" for one, other in columns)


def measure(argument: str) -> int:
    """Takes one step of a config (the first variant of a sweep) and prints seconds by phase as JSON."""
    try:
        config = cli.parse(["launch", f"--config={argument}"]).config
        config = next(iter(check.variants(config).values()), config)
        config.mesh.update(replica=1, data=-1, fsdp=1, sequence=1, tensor=1, rules=())
        print(json.dumps(first_step(config)))
    except GentrainError as error:
        cli.say(f"not measured: {error}")
        return error.exit_code
    return 0


def first_step(config) -> dict[str, float]:
    """Seconds of each phase of the first step."""
    times = [time.perf_counter()]

    def phase_is_over() -> None:
        times.append(time.perf_counter())

    import jax

    from gentrain import program, sharding, train  # noqa: F401, what the launcher imports
    from gentrain.datasets import build

    phase_is_over()
    data = build.build(config, None)
    phase_is_over()
    built = program.build(config, data.spec)
    size = sharding.elements(built.state.params)
    if size > MOST_PARAMETERS:
        raise GentrainError(f"{size:,} parameters")
    update: Any = built.update
    lowered = update.lower(built.state, built.batch)
    phase_is_over()
    compiled = lowered.compile()
    phase_is_over()
    state = built.init()
    jax.block_until_ready(compiled(state, sharding.put(data.train.batch(0), built.mesh, config.data.batch_size)))
    phase_is_over()
    return {phase: times[number + 1] - times[number] for number, phase in enumerate(PHASES)}


if __name__ == "__main__":
    sys.exit(main())
