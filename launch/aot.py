"""Compiles a config's training step ahead of time, for machines that are not here, and says what it would take of them:

    python -m launch.aot --config configs/x.py --host_devices 512           # simulated devices: shards and traffic
    python -m launch.aot --config configs/x.py --topology v5e:16x16         # TPUs: the peak of memory as well

Nothing is run and no accelerator is needed; TPUs take `pip install -r requirements-aot.txt`. An axis of -1 takes all
devices, and a batch that does not divide over them is raised to the next that does. Exit codes: 0 it compiles (and
fits), 1 it does not fit, 2 config error.
"""

import contextlib
import importlib.util
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from gentrain.devices import HBM, PEAK_FLOPS, known
from gentrain.errors import ConfigError, DataError, GentrainError
from launch import cli, hlo
from launch.cli import one_line

ROOM = 0.85  # of HBM: what a step may take, the rest being for the runtime, the next batches and evaluation
REMATERIALISED = b"Involuntary full rematerialization"  # what XLA says when it can only copy an array to every device


def make_flags() -> flags.FlagValues:
    """The flags that the launcher does not have."""
    values = flags.FlagValues()
    flags.DEFINE_string("topology", "", "TPUs by name, as v5e:16x16 or v5p:8x8x8", flag_values=values)
    flags.DEFINE_integer("num_slices", 1, "how many of that topology", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("host_devices", 0, "simulated CPU devices", lower_bound=0, flag_values=values)
    speed = "GB/s that one chip sends, for a predicted step time; 0: none is predicted"
    flags.DEFINE_float("ici_gbps", 0.0, f"within a slice: {speed}", lower_bound=0.0, flag_values=values)
    flags.DEFINE_float("dcn_gbps", 0.0, f"between slices (axis replica): {speed}", lower_bound=0.0, flag_values=values)
    flags.DEFINE_string("json", "", "a file to write the numbers to", flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """The command as a function; returns the exit code."""
    if cli.asks_for_help(argv):
        print(__doc__)
        return 0
    try:
        options = make_flags()
        try:
            rest = options(list(argv), known_only=True)
        except flags.Error as error:
            raise ConfigError(one_line(error)) from None
        if bool(options.topology) == bool(options.host_devices):
            raise ConfigError("say for which devices: --topology v5e:16x16, or --host_devices 512")
        numbers = measure(cli.parse(rest).config, options)
    except GentrainError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    show(numbers)
    if options.json:
        from gentrain.files import write_json

        write_json(Path(options.json), numbers)
    return 0 if numbers.get("fits", True) else 1


def measure(config: ConfigDict, options: flags.FlagValues) -> dict[str, Any]:
    """Compiles the step for simulated devices, which tell the traffic, and for the TPUs, which tell the peak."""
    # No TPU is asked for what it is, and none is taken, so that several may compile.
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    chips = described(options.topology, options.num_slices) if options.topology else []
    import jax

    # What comes from a cache, or is not optimised, is not what would run, and warns of nothing.
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_num_cpu_devices", len(chips) or options.host_devices)

    from gentrain import sharding

    asked, spec = config.data.batch_size, described_data(config)
    raise_batch(config, len(jax.devices()))
    program, executable, host = compiled(config, spec, jax.devices())
    rows, loops = hlo.traffic(executable.as_text(), program.mesh.shape)
    batch = {"rows": config.data.batch_size, "asked": asked, "tokens": config.data.batch_size * spec.length}
    kind = (chips or jax.devices())[0].device_kind
    numbers = {
        "devices": {"kind": kind, "count": len(jax.devices())},
        "mesh": dict(program.mesh.shape),
        "batch": batch,
        "parameters": {player: sharding.elements(own) for player, own in program.state.params.items()},
        "moves": list(program.objective.players),
        "arguments": arguments(program),
        "even": even(program),
        "host": host,
        "traffic": [row._asdict() for row in rows],
        "unknown_loops": loops,
    }
    if chips:
        _, executable, chip = compiled(config, spec, chips)
        peak = executable.memory_analysis().peak_memory_in_bytes if executable else 0
        numbers |= {"chip": chip, "peak": peak, "fits": 0 < peak <= ROOM * known(HBM, kind)}
        numbers["predicted"] = predicted(numbers, options)
    return numbers


def described(topology: str, slices: int) -> Sequence[Any]:
    """The devices of TPUs that are not here. Raises ConfigError where libtpu is missing or does not know them."""
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("--topology needs libtpu: pip install -r requirements-aot.txt")
    from jax.experimental import topologies

    several = {"num_slices": slices} if slices > 1 else {}
    try:
        with silenced():
            found: Sequence[Any] = topologies.get_topology_desc(
                platform="tpu", topology_name=topology, **several
            ).devices
    except Exception as error:  # whatever libtpu raises for a name that it does not know
        raise ConfigError(f"--topology={topology}: {one_line(error)}") from None
    if known(HBM, found[0].device_kind) is None:
        raise ConfigError(f"--topology={topology}: {found[0].device_kind} is none of {', '.join(HBM)}")
    return found


def described_data(config: ConfigDict) -> Any:
    """The spec of the data, from the config where they are not there yet."""
    from gentrain.datasets import build

    try:
        return build.build(config, None).spec
    except DataError:
        if (expected := build.expected_spec(config)) is None:
            raise
        return expected


def raise_batch(config: ConfigDict, devices: int) -> None:
    """Raises data.batch_size to the least that divides over the mesh."""
    from gentrain import sharding

    rows = math.prod(sharding.mesh_sizes(config.mesh, devices)[:3]) * config.training.microbatches
    config.data.batch_size = -(-config.data.batch_size // rows) * rows


def compiled(config: ConfigDict, spec, devices: Sequence[Any]) -> tuple[Any, Any, dict[str, Any]]:
    """The program of a config on these devices, its compiled update, and of that seconds, bytes of arguments and how
    often XLA could not get from one sharding to another; no update and `error` where the compiler finds no memory."""
    import jax

    from gentrain import program as programs
    from gentrain import sharding

    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, config.training.microbatches, devices)
    program = programs.build(config, spec, mesh)
    update: Any = program.update
    began = time.perf_counter()
    with silenced() as said:
        lowered = update.lower(program.state, program.batch)
        try:
            executable = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return program, None, {"error": str(error).splitlines()[0]}
    numbers = {
        "seconds": time.perf_counter() - began,
        "rematerialised": said[0].count(REMATERIALISED),
        "arguments": executable.memory_analysis().argument_size_in_bytes,
    }
    return program, executable, numbers


@contextlib.contextmanager
def silenced() -> Iterator[list[bytes]]:
    """Keeps what compilers, which are not Python, write to standard error: it is in the list afterwards."""
    said: list[bytes] = []
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read())


def arguments(program) -> dict[str, int]:
    """Bytes of a step's arguments on one device, as they are placed."""
    from gentrain import sharding

    state = program.state
    parts = {
        "parameters": state.params,
        "optimiser state": state.opt_state,
        "averaged parameters": state.ema,
        "carried": (state.carry, state.skipped, state.step),
        "batch": program.batch,
    }
    return {name: sharding.bytes_per_device(part) for name, part in parts.items()}


def even(program) -> int:
    """Bytes of them if the state were split evenly over fsdp * tensor devices, small arrays copied."""
    import jax

    from gentrain import sharding

    devices = program.mesh.shape["fsdp"] * program.mesh.shape["tensor"]
    share = lambda leaf: 1 if math.prod(leaf.shape) < sharding.SMALL else devices
    state = sum(math.prod(leaf.shape) * leaf.dtype.itemsize / share(leaf) for leaf in jax.tree.leaves(program.state))
    return round(state) + sharding.bytes_per_device(program.batch)


def predicted(numbers: dict[str, Any], options: flags.FlagValues) -> dict[str, float]:
    """Seconds of one step by a roofline: 6 N FLOP a token for each move of a player with N parameters, at the chips'
    peak (attention, sampling and recomputation not counted); bytes along each axis at the speed of its network.

    mfu = t_comp / max(t_comp, t_comm of each axis): as if all overlapped.
    """
    work = 6 * sum(numbers["parameters"][player] for player in numbers["moves"]) * numbers["batch"]["tokens"]
    peak = known(PEAK_FLOPS, numbers["devices"]["kind"])
    times = {"compute": work / (numbers["devices"]["count"] * peak)} if peak else {}
    for row in numbers["traffic"]:
        speed = options.dcn_gbps if "replica" in row["axes"].split("+") else options.ici_gbps
        name = f"along {row['axes']}"
        if speed:
            times[name] = times.get(name, 0.0) + row["sent"] / (speed * 1e9)
    if "compute" in times and len(times) > 1:
        times["mfu"] = times["compute"] / max(times.values())
    return times


def show(numbers: dict[str, Any]) -> None:
    """The numbers, for people."""
    batch, devices, parts, mib = numbers["batch"], numbers["devices"], numbers["arguments"], 2**20
    print(f"devices    {devices['count']:,} x {devices['kind']}")
    print("mesh       " + ", ".join(f"{axis}={size}" for axis, size in numbers["mesh"].items()))
    raised = "" if batch["rows"] == batch["asked"] else f"; raised from {batch['asked']:,} to divide over the mesh"
    print(f"batch      {batch['rows']:,} rows, {batch['tokens']:,} tokens a step{raised}")
    print("parameters " + ", ".join(f"{player} {size:,}" for player, size in numbers["parameters"].items()))
    for where in ("host", "chip"):
        if found := numbers.get(where):
            told = "{seconds:.1f} s, {rematerialised} involuntary rematerialisations"
            print(f"compiled   for the {where}: {found.get('error') or told.format(**found)}")
    print("arguments on each device:")
    sums = {"in all": sum(parts.values()), "as compiled": numbers["host"]["arguments"], "if even": numbers["even"]}
    for name, size in {**parts, **sums}.items():
        print(f"  {name:<32} {size / mib:12,.2f} MiB")
    if peak := numbers.get("peak"):
        room = known(HBM, devices["kind"])
        fits = "fits" if numbers["fits"] else "does not fit"
        print(
            f"peak       {peak / 2**30:.2f} GiB, {peak / room:.1%} of {room / 1e9:.0f} GB: {fits} ({ROOM:.0%} may be)"
        )
    elif "chip" not in numbers:
        print("peak       not known: what a CPU keeps is not what an accelerator would")
    print("sent by each device in a step, by the host's program (bfloat16 goes as float32 there):")
    for row in numbers["traffic"]:
        print(f"  {row['kind']:<20} {row['axes']:<20} {row['calls']:7,} x {row['sent'] / mib:14,.2f} MiB in all")
    if numbers["unknown_loops"]:
        print(f"  trip counts unknown: what is in {numbers['unknown_loops']} of the loops is counted once")
    for name, value in numbers.get("predicted", {}).items():
        best = f"{value:.0%} of peak at best (attention, sampling and recomputation not counted)"
        told = best if name == "mfu" else f"{1e3 * value:,.1f} ms {name}"
        print(f"predicted  {told}")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
