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

from gentrain.devices import HBM, PEAK_FLOPS, look_up
from gentrain.errors import ConfigError, GentrainError
from launch import cli, hlo
from launch.cli import one_line
from launch.dry_run import data_spec

ROOM = 0.85  # of HBM: what a step may take; the rest is for the runtime, the next batches and evaluation
REMATERIALISED = b"Involuntary full rematerialization"  # what XLA says when it can only copy an array to every device
MIB, GIB = 2**20, 2**30


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
        cli.say(f"{type(error).__name__}: {error}")
        return error.exit_code
    show(numbers)
    if options.json:
        from gentrain.files import write_json

        write_json(Path(options.json), numbers)
    return 0 if numbers.get("fits", True) else 1


def measure(config: ConfigDict, options: flags.FlagValues) -> dict[str, Any]:
    """Compiles the step for simulated devices, which tell the traffic, and for the TPUs, which tell the peak."""
    # No TPU is asked for what it is and none is taken, so that several such processes may compile at a time.
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    chips = tpu_devices(options.topology, options.num_slices) if options.topology else []
    import jax

    # What comes from a cache, or is not optimised, is not what would run, and warns of nothing.
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_num_cpu_devices", len(chips) or options.host_devices)

    from gentrain import adapters, sharding

    spec, _ = data_spec(config)
    rows_in_config = config.data.batch_size
    raise_batch(config, len(jax.devices()))
    rows = config.data.batch_size
    program, executable, host = compile_update(config, spec, jax.devices())
    traffic, unknown_loops = hlo.traffic(executable.as_text(), program.mesh.shape)
    kind = (chips or jax.devices())[0].device_kind
    params = adapters.join(program.state.frozen, program.state.params)
    numbers = {
        "devices": {"kind": kind, "count": len(jax.devices())},
        "mesh": dict(program.mesh.shape),
        "batch": {"rows": rows, "asked": rows_in_config, "tokens": rows * spec.length},
        "parameters": {player: sharding.elements(leaves) for player, leaves in params.items()},
        "moves": list(program.objective.players),
        "arguments": argument_bytes(program),
        "even": even_bytes(program),
        "host": host,
        "traffic": [row._asdict() for row in traffic],
        "unknown_loops": unknown_loops,
    }
    if chips:
        _, executable, chip = compile_update(config, spec, chips)
        peak = executable.memory_analysis().peak_memory_in_bytes if executable else 0
        numbers |= {"chip": chip, "peak": peak, "fits": 0 < peak <= ROOM * look_up(HBM, kind)}
        numbers["predicted"] = predict(numbers, options)
    return numbers


def tpu_devices(topology: str, slices: int) -> Sequence[Any]:
    """The devices of TPUs that are not here. Raises ConfigError where libtpu is missing or does not know them."""
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("--topology needs libtpu: pip install -r requirements-aot.txt")
    from jax.experimental import topologies

    options: dict[str, Any] = {"platform": "tpu", "topology_name": topology}
    if slices > 1:
        options["num_slices"] = slices
    try:
        with captured_stderr():
            devices: Sequence[Any] = topologies.get_topology_desc(**options).devices
    except Exception as error:  # whatever libtpu raises for a name that it does not know
        raise ConfigError(f"--topology={topology}: {one_line(error)}") from None
    kind = devices[0].device_kind
    if look_up(HBM, kind) is None:
        raise ConfigError(f"--topology={topology}: {kind} is none of {', '.join(HBM)}")
    return devices


def raise_batch(config: ConfigDict, devices: int) -> None:
    """Raises data.batch_size to the least that divides over the mesh."""
    from gentrain import sharding

    rows = math.prod(sharding.mesh_sizes(config.mesh, devices)[:3]) * config.training.microbatches
    config.data.batch_size = -(-config.data.batch_size // rows) * rows


def compile_update(config: ConfigDict, spec: Any, devices: Sequence[Any]) -> tuple[Any, Any, dict[str, Any]]:
    """The program of a config on these devices, its compiled update, and numbers about that: seconds to compile it,
    bytes of its arguments, and how often XLA could not get from one sharding to another. Where the compiler finds no
    memory there is no update, and the numbers are its `error`."""
    import jax

    from gentrain import program as programs
    from gentrain import sharding

    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, config.training.microbatches, devices)
    program = programs.build(config, spec, mesh)
    update: Any = program.update  # a function of jax.jit's
    began = time.perf_counter()
    with captured_stderr() as output:
        lowered = update.lower(program.state, program.batch)
        try:
            executable = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return program, None, {"error": str(error).splitlines()[0]}
    numbers = {
        "seconds": time.perf_counter() - began,
        "rematerialised": output[0].count(REMATERIALISED),
        "arguments": executable.memory_analysis().argument_size_in_bytes,
    }
    return program, executable, numbers


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[bytes]]:
    """Keeps what compilers, which are not Python, write to standard error: it is in the list afterwards."""
    output: list[bytes] = []
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield output
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            output.append(file.read())


def argument_bytes(program: Any) -> dict[str, int]:
    """Bytes of a step's arguments on one device, as they are placed."""
    from gentrain import sharding

    state = program.state
    parts = {
        "parameters": (state.params, state.frozen),
        "optimiser state": state.opt_state,
        "averaged parameters": state.ema,
        "carried": (state.carry, state.health, state.step),
        "batch": program.batch,
    }
    return {name: sharding.bytes_per_device(part) for name, part in parts.items()}


def even_bytes(program: Any) -> int:
    """Bytes of a step's arguments on one device if the state were split evenly over fsdp * tensor devices and only
    small arrays were copied."""
    import jax

    from gentrain import sharding

    devices = program.mesh.shape["fsdp"] * program.mesh.shape["tensor"]
    state = 0.0
    for leaf in jax.tree.leaves(program.state):
        elements = math.prod(leaf.shape)
        parts = 1 if elements < sharding.SMALL else devices
        state += elements * leaf.dtype.itemsize / parts
    return round(state) + sharding.bytes_per_device(program.batch)


def predict(numbers: dict[str, Any], options: flags.FlagValues) -> dict[str, float]:
    """Seconds of one step by a roofline: 6 N FLOP a token for each move of a player with N parameters, at the chips'
    peak (attention, sampling and recomputation not counted); bytes along each axis at the speed of its network.

    mfu = t_comp / max(t_comp, t_comm of each axis): as if all overlapped.
    """
    moved_parameters = sum(numbers["parameters"][player] for player in numbers["moves"])
    flop = 6 * moved_parameters * numbers["batch"]["tokens"]
    peak = look_up(PEAK_FLOPS, numbers["devices"]["kind"])
    times = {"compute": flop / (numbers["devices"]["count"] * peak)} if peak else {}
    for row in numbers["traffic"]:
        between_slices = "replica" in row["axes"].split("+")
        speed = options.dcn_gbps if between_slices else options.ici_gbps
        if speed:
            name = f"along {row['axes']}"
            times[name] = times.get(name, 0.0) + row["sent"] / (speed * 1e9)
    if "compute" in times and len(times) > 1:
        times["mfu"] = times["compute"] / max(times.values())
    return times


def show(numbers: dict[str, Any]) -> None:
    """Prints the numbers, for people."""
    batch, devices = numbers["batch"], numbers["devices"]
    print(f"devices    {devices['count']:,} x {devices['kind']}")
    print("mesh       " + ", ".join(f"{axis}={size}" for axis, size in numbers["mesh"].items()))
    raised = "" if batch["rows"] == batch["asked"] else f"; raised from {batch['asked']:,} to divide over the mesh"
    print(f"batch      {batch['rows']:,} rows, {batch['tokens']:,} tokens a step{raised}")
    print("parameters " + ", ".join(f"{player} {size:,}" for player, size in numbers["parameters"].items()))
    for target in ("host", "chip"):
        if compiled := numbers.get(target):
            text = "{seconds:.1f} s, {rematerialised} involuntary rematerialisations"
            print(f"compiled   for the {target}: {compiled.get('error') or text.format(**compiled)}")
    print("arguments on each device:")
    sizes = numbers["arguments"]
    totals = {"in all": sum(sizes.values()), "as compiled": numbers["host"]["arguments"], "if even": numbers["even"]}
    for name, size in {**sizes, **totals}.items():
        print(f"  {name:<32} {size / MIB:12,.2f} MiB")
    if peak := numbers.get("peak"):
        memory = look_up(HBM, devices["kind"])
        fits = "fits" if numbers["fits"] else "does not fit"
        share = f"{peak / memory:.1%} of {memory / 1e9:.0f} GB"
        print(f"peak       {peak / GIB:.2f} GiB, {share}: {fits} ({ROOM:.0%} may be)")
    elif "chip" not in numbers:
        print("peak       not known: what a CPU keeps is not what an accelerator would")
    print("sent by each device in a step, by the host's program (bfloat16 goes as float32 there):")
    for row in numbers["traffic"]:
        print(f"  {row['kind']:<20} {row['axes']:<20} {row['calls']:7,} x {row['sent'] / MIB:14,.2f} MiB in all")
    if numbers["unknown_loops"]:
        print(f"  trip counts unknown: what is in {numbers['unknown_loops']} of the loops is counted once")
    for name, value in numbers.get("predicted", {}).items():
        if name == "mfu":
            text = f"{value:.0%} of peak at best (attention, sampling and recomputation not counted)"
        else:
            text = f"{1e3 * value:,.1f} ms {name}"
        print(f"predicted  {text}")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
