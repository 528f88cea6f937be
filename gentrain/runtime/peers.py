"""Processes that are one run: how they meet, agree, and notice that one is gone."""

import hashlib
import importlib.metadata
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from gentrain.errors import ConfigError, LostPeer

Answer = TypeVar("Answer", bool, int)
HEARTBEAT = 10  # seconds of silence after which a process counts as dead
STATUS = re.compile(r"[A-Z_]+: ")  # how XLA's errors begin
LOST = re.compile(r"UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|[Gg]loo|NCCL|coordination service")


def free_port() -> int:
    """A port that nothing on this machine listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def agree(answer: Answer) -> Answer:
    """Process 0's answer, on all processes: for decisions that depend on a clock, or on a file that it writes."""
    import jax

    if jax.process_count() == 1:
        return answer
    from jax.experimental import multihost_utils

    return type(answer)(multihost_utils.broadcast_one_to_all(answer))


def join(coordinator: str, processes: int, index: int, timeout: int = 60) -> None:
    """Makes this process one of `processes`, meeting at coordinator (host:port), or as the cluster says if 'auto'.

    Call before any other use of JAX. Raises LostPeer where they do not meet within the timeout, in seconds.
    """
    import jax

    # On CPU, programs that run ahead of one another can wait for each other's collectives for ever.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    auto = coordinator == "auto"
    try:
        jax.distributed.initialize(
            None if auto else coordinator,
            None if auto else processes,
            None if auto else index,
            # Left to itself JAX would ask a cluster that it finds for the devices to use, whatever is given here.
            cluster_detection_method=None if auto else "deactivate",
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=30,
        )
    except ValueError as error:
        raise ConfigError(f"--coordinator={coordinator}: {str(error).splitlines()[0]}") from None
    except jax.errors.JaxRuntimeError as error:
        raise LostPeer(f"process {index} met nobody at {coordinator}: {str(error).splitlines()[0]}") from None


def lost_peer(error: BaseException | None) -> LostPeer | None:
    """The LostPeer that an error, or one that it came from, tells of; None where it tells of none.

    Such an error is a JaxRuntimeError, or the ValueError that JAX makes of it on CPU. It begins with a status of XLA's.
    """
    while error is not None:
        text = str(error)
        if STATUS.match(text) and LOST.search(text):
            return LostPeer(f"another process is gone ({text.splitlines()[0]}); run the same command on all to go on")
        error = error.__cause__ or error.__context__
    return None


def run_digests(config: Mapping[str, Any]) -> dict[str, str]:
    """What all processes of a run must have in common: the code, the packages under it and the config."""
    root = Path(__file__).parents[2]
    code = [path.read_bytes() for folder in ("gentrain", "launch") for path in sorted((root / folder).rglob("*.py"))]
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")]
    return {
        "code": hashlib.sha256(b"\0".join(code)).hexdigest(),
        "packages": " ".join(versions),
        "config": hashlib.sha256(json.dumps(dict(config), sort_keys=True).encode()).hexdigest(),
    }


def same_everywhere(digests: Mapping[str, str]) -> None:
    """Raises ConfigError, on all processes, naming what differs from process 0 and on which processes."""
    import jax
    import numpy as np

    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    here = np.stack([np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8) for value in digests.values()])
    everywhere = multihost_utils.process_allgather(here)  # (processes, names, 32)
    differ = np.any(everywhere != everywhere[:1], axis=-1)  # (processes, names)
    wrong = []
    for name, differs in zip(digests, differ.T, strict=True):
        if differs.any():
            wrong.append(f"{name} of process {', '.join(map(str, np.flatnonzero(differs)))}")
    if wrong:
        raise ConfigError(f"not the same as that of process 0: {'; '.join(wrong)}; start all from one copy")
