"""gentrain on Ray: one process on each of 4 nodes with 8 GPUs, run again until it is done.

    ray job submit --working-dir . -- python -m launch.engines.ray \
        --config=configs/lm1b_likelihood.py --config.mesh.data=-1 --workdir=/shared/lm1b

The arguments are those of `python -m launch`, which every node runs with them. Change: nodes, GPUs and CPUs below; the
config; the workdir, on a file system that all nodes share. The nodes' Python environment has the requirements.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

NODES = 4
GPUS, CPUS = 8, 32  # a node
ATTEMPTS = 100


def address() -> str:
    """host:port on the node that this runs on."""
    import ray

    with socket.socket() as free:
        free.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


def work(argv: Sequence[str], coordinator: str, process: int) -> int:
    """One process of a run; its exit code.

    It is a child of Ray's worker: JAX starts afresh in every attempt, and its exit does not kill the worker that
    reports it.
    """
    names = ("GENTRAIN_COORDINATOR", "GENTRAIN_NUM_PROCESSES", "GENTRAIN_PROCESS_ID")
    place = dict(zip(names, (coordinator, str(NODES), str(process)), strict=True))
    command = [sys.executable, "-m", "launch", *argv]
    code = subprocess.run(command, env=os.environ | place).returncode
    return code if code >= 0 else 128 - code


def attempt(argv: Sequence[str]) -> list[int]:
    """Runs it once, on all nodes at a time; the exit codes, 42 where the node was lost."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{"CPU": CPUS, "GPU": GPUS}] * NODES, strategy="STRICT_SPREAD")

    def start(node: int, function: Callable, *arguments):
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
        options = {"num_cpus": CPUS, "num_gpus": GPUS, "max_retries": 0, "scheduling_strategy": strategy}
        return ray.remote(**options)(function).remote(*arguments)

    def result(task) -> int:
        try:
            return ray.get(task)
        except ray.exceptions.RayError:
            return 42

    try:
        coordinator = ray.get(start(0, address))
        tasks = [start(node, work, argv, coordinator, node) for node in range(NODES)]
        return [result(task) for task in tasks]
    finally:
        remove_placement_group(group)


def main(argv: Sequence[str]) -> int:
    """Attempts until all nodes are done or one ends in what would end the same way again (1 to 6); the exit code."""
    import ray

    ray.init()
    for _ in range(ATTEMPTS):
        codes = attempt(argv)
        final = [code for code in codes if code in range(1, 7)]
        if final or not any(codes):
            return max(final, default=0)
    return 42


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
