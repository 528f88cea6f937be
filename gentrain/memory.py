"""How much memory a run takes of a device, before any is taken, and whether there is as much."""

import math
import os
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from gentrain import adapters, sharding
from gentrain.errors import ConfigError
from gentrain.program import Program

SAFE = 0.1  # share of the memory below which a rough estimate is enough
ARRAYS_A_LAYER = 16  # of (rows, length, width), which a layer keeps for the backward pass at most; rough
CGROUP = Path("/sys/fs/cgroup/memory.max")


def state_bytes(config: ConfigDict, program: Program) -> dict[str, int]:
    """What one device holds between steps, and of the gradients and batches of a step. Exact."""
    state = program.state
    return {
        "parameters": sharding.bytes_per_device((state.params, state.frozen)),
        "optimiser state": sharding.bytes_per_device(state.opt_state),
        "averaged parameters": sharding.bytes_per_device(state.ema),
        "gradients": sharding.bytes_per_device(state.params) * (2 if config.training.microbatches > 1 else 1),
        "batches": sharding.bytes_per_device(program.batch) * (config.data.prefetch + 1),
    }


def estimate(config: ConfigDict, program: Program) -> dict[str, int]:
    """What one device holds at the widest point of a step: what the compiler fuses or copies is not counted.

    What is kept for the backward pass is exact as far as autodiff goes: the arrays that the gradient's closure holds
    for one device's rows of one microbatch, remat included, as if no activation were split over the tensor axis.
    """
    rows = {
        name: jax.ShapeDtypeStruct((local_rows(config, program), *leaf.shape[1:]), leaf.dtype)
        for name, leaf in program.batch.items()
    }
    state, player = program.state, program.objective.players[-1]
    key = jax.eval_shape(lambda: jax.random.key(0))

    def backward(player_params, params, carry, batch, key, step):
        def loss(player_params):
            return program.objective.loss(
                player, adapters.join(params, {player: player_params}), carry, batch, key, step
            )[0].total

        return jax.vjp(loss, player_params)[1]

    with sharding.inside(sharding.one_device()):
        params = adapters.join(state.frozen, state.params)
        kept = jax.eval_shape(backward, state.params[player], params, state.carry, rows, key, state.step)
    activations = max(whole_bytes(kept) - whole_bytes(params[player]), 0) // program.mesh.shape["sequence"]
    return {**state_bytes(config, program), "kept for the backward pass": activations}


def whole_bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def local_rows(config: ConfigDict, program: Program) -> int:
    """Rows of a microbatch on one device."""
    return config.data.batch_size // (sharding.batch_parts(program.mesh) * config.training.microbatches)


def rough_activations(config: ConfigDict, program: Program) -> int:
    """Bytes that the backward pass of a step needs, from the sizes in the config alone."""
    network, shapes = config.model, [math.prod(leaf.shape[1:2]) for leaf in program.batch.values()]
    positions = local_rows(config, program) * max(shapes) // program.mesh.shape["sequence"]
    vocab = getattr(program.objective.model, "vocab", 1)
    return 4 * positions * (vocab + ARRAYS_A_LAYER * network.width * network.layers)


def host_bytes() -> int:
    """Memory of this machine, or as much of it as this process may have."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP.read_text().strip() if CGROUP.exists() else "max"
    return min(physical, int(limit)) if limit.isdecimal() else physical


def device_bytes() -> int:
    """Memory of one of this process's devices; on a CPU they share that of the host."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    return stats["bytes_limit"] if stats else host_bytes() // jax.local_device_count()


def check_rows(config: ConfigDict) -> None:
    """Raises ConfigError for batches whose tokens alone are more than this machine holds."""
    size = 8 * config.data.batch_size * config.data.length * (config.data.prefetch + 1) // jax.process_count()
    if size > host_bytes():
        raise ConfigError(
            f"data.batch_size={config.data.batch_size:,} rows of data.length={config.data.length:,} take"
            f" {gigabytes(size)} on each host, which has {gigabytes(host_bytes())}: expected fewer or shorter rows"
        )


def check(config: ConfigDict, program: Program, allow: Collection[str] = ()) -> None:
    """Raises ConfigError where a step takes more memory than a device has; with 'memory' allowed it warns.

    A rough estimate is enough where it is far below: a more careful one takes as long as tracing the loss.
    """
    available = device_bytes()
    sizes = state_bytes(config, program)
    if sum(sizes.values()) + rough_activations(config, program) < SAFE * available:
        return
    if sum(sizes.values()) <= available:
        sizes = estimate(config, program)
    if (needed := sum(sizes.values())) <= available:
        return
    largest = ", ".join(
        f"{name} {gigabytes(size)}" for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:3]
    )
    text = f"a step takes {gigabytes(needed)} of each device, which has {gigabytes(available)}: {largest}"
    if "memory" in allow:
        return warnings.warn(f"{text}; going on, as --allow=memory says", stacklevel=2)
    raise ConfigError(f"{text}; make it smaller, split it over more devices, or try it with --allow=memory")


def gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
