"""--dry_run: is the config sound, what mesh, how many parameters, how many bytes on each device. Computes nothing."""

import math
import os
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from gentrain.errors import DataError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from gentrain.datasets.spec import Spec
    from gentrain.program import Program


def dry_run(config: ConfigDict) -> None:
    """Prints what `describe` says, for as many simulated CPU devices as the mesh asks for (an axis of -1 counts as 1).

    No accelerator is touched. It must come before any other use of JAX in this process.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    jax.config.update("jax_num_cpu_devices", devices_of(config))
    describe(config)


def devices_of(config: ConfigDict) -> int:
    """How many devices the mesh asks for; an axis of -1, which takes all that are left, counts as 1."""
    return math.prod(max(size, 1) for axis, size in config.mesh.items() if axis != "rules")


def describe(config: ConfigDict, mesh: "Mesh | None" = None) -> "Program":
    """Builds the program, prints its sizes and returns it; nothing is compiled. mesh: by default that of all devices.

    Data that are not prepared are described from the config where that can be.
    """
    from gentrain import memory, sharding
    from gentrain import program as programs

    spec, missing = data_spec(config)
    if missing:
        print(f"data       not there yet, sizes are from the config ({missing})")
    program = programs.build(config, spec, mesh)
    print("mesh       " + ", ".join(f"{axis}={size}" for axis, size in program.mesh.shape.items()))
    print(f"data       {spec.kind}, {spec.vocab:,} symbols, rows of {spec.length:,} tokens")
    print(f"batch      {config.data.batch_size:,} rows, {config.data.batch_size * spec.length:,} tokens a step")
    print(f"parameters {sharding.elements((program.state.params, program.state.frozen)):,}")
    print("bytes on each device:")
    sizes = memory.estimate(config, program)
    for name, size in {**sizes, "in all": sum(sizes.values())}.items():
        print(f"  {name:<32} {size / 2**20:12,.1f} MiB")
    return program


def data_spec(config: ConfigDict) -> "tuple[Spec, DataError | None]":
    """The spec of a config's data; from the config where they are not prepared, with the error that says so.

    Raises that DataError where the config does not tell.
    """
    from gentrain.datasets import build

    try:
        return build.build(config, None).spec, None
    except DataError as error:
        if (expected := build.expected_spec(config)) is None:
            raise
        return expected, error
