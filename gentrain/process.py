"""The operating system's side of a run: one job a workdir, signals that ask it to stop, processes that end together."""

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gentrain.errors import ConfigError, LostPeer, Stopped, WorkdirInUse

HEARTBEAT = 10  # seconds of silence after which a process counts as dead
PATIENCE = 20  # seconds that the processes of one machine are given to end by themselves after one of them failed
PARENT_DIED = 1  # prctl's PR_SET_PDEATHSIG


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds the workdir for this process; raises WorkdirInUse naming the owner where another one has it.

    The kernel lets go of the lock when its owner dies, however it dies, so nothing stale can be left behind.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / "lock", "a+")  # noqa: SIM115, held for as long as the run goes on
    except OSError as error:
        raise ConfigError(f"cannot write to workdir {workdir}: {error.strerror}; choose another --workdir") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            text = file.read()
            pid, host, since = json.loads(text) if text else ("?", "?", time.time())
            owner = f"process {pid} on {host} for {time.time() - since:.0f} s"
            raise WorkdirInUse(f"{workdir} is in use by {owner}; wait, or choose another --workdir") from None
        file.truncate(0)
        file.write(json.dumps([os.getpid(), socket.gethostname(), time.time()]))
        file.flush()
        yield


UNRAISABLE = ("_xla_gc_callback", "__del__")  # functions, JAX's own among them, out of which no exception comes


class Stop:
    """SIGTERM and SIGINT as a request to save and go.

    Outside of `deferred()` the request raises Stopped where the program stands; inside it only sets `requested`, so
    that an update or a save is never cut in two. A second signal ends the process at once: what is committed on disk
    stays good. In a run of several processes JAX's own notifier sees SIGTERM to any of them, and `at(step)` is True on
    all at the same step.
    """

    def __init__(self, alone: bool = True):
        self.requested, self._deferred, self._alone = False, False, alone
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGTERM, signal.SIGINT) if self._alone else ():
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested = True
        # What a callback of the garbage collector raises goes nowhere; then the next look at `requested` has to do.
        while frame and frame.f_code.co_name not in UNRAISABLE:
            frame = frame.f_back
        if not self._deferred and not frame:
            raise Stopped(f"stopped by {signal.Signals(number).name}")

    @contextlib.contextmanager
    def deferred(self, defer: bool = True) -> Iterator[None]:
        before, self._deferred = self._deferred, defer
        if self.requested and not defer:
            self._deferred = before
            raise Stopped("stopped by a signal")
        try:
            yield
        finally:
            self._deferred = before

    def at(self, step: int) -> bool:
        """Whether to stop after this step; the same answer on every process."""
        if self._alone:
            return self.requested
        from jax.experimental import multihost_utils

        self.requested = self.requested or multihost_utils.reached_preemption_sync_point(step)
        return self.requested


def free_port() -> int:
    """A port that nothing on this machine listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def agree(flag: bool) -> bool:
    """Process 0's answer, on all processes: for decisions that depend on a clock."""
    import jax

    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(flag))


def join(coordinator: str, processes: int, index: int, timeout: int = 60) -> None:
    """Makes this process one of `processes`, meeting at coordinator (host:port), or as the cluster says if 'auto'.

    Call before any other use of JAX. Raises LostPeer where they do not meet within the timeout, in seconds.
    """
    import jax

    # On CPU, programs that run ahead of one another can wait for each other's collectives for ever.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    auto = coordinator == "auto"
    address, count, own = (None, None, None) if auto else (coordinator, processes, index)
    try:
        jax.distributed.initialize(
            address,
            count,
            own,
            # What is said is said: left to itself JAX would still ask a cluster it finds for the devices to use.
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
    """What an error, or what it came from, says of another process, if anything: a JaxRuntimeError, or the ValueError
    that JAX makes of it on CPU, whose text begins with a status of XLA's."""
    status = r"[A-Z_]+: "
    words = r"UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|[Gg]loo|NCCL|coordination service"
    while error is not None:
        text = str(error)
        if re.match(status, text) and re.search(words, text):
            return LostPeer(f"another process is gone ({text.splitlines()[0]}); run the same command on all to go on")
        error = error.__cause__ or error.__context__
    return None


def digests(config: Mapping[str, Any]) -> dict[str, str]:
    """What all processes of a run must have in common: the code, the packages under it and the config."""
    root = Path(__file__).parents[1]
    code = [path.read_bytes() for room in ("gentrain", "launch") for path in sorted((root / room).rglob("*.py"))]
    packages = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")]
    digest = lambda parts: hashlib.sha256(b"\0".join(parts)).hexdigest()
    return {
        "code": digest(code),
        "packages": " ".join(packages),
        "config": digest([json.dumps(dict(config), sort_keys=True).encode()]),
    }


def same_everywhere(found: Mapping[str, str]) -> None:
    """Raises ConfigError, on all processes, naming those that found something else than process 0 did."""
    import jax
    import numpy as np

    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    own = np.stack([np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8) for value in found.values()])
    every = multihost_utils.process_allgather(own)  # (processes, names, 32)
    differ = np.any(every != every[:1], axis=-1)
    wrong = [f"{name} of process {', '.join(map(str, np.flatnonzero(differ[:, i])))}" for i, name in enumerate(found)]
    wrong = [text for i, text in enumerate(wrong) if differ[:, i].any()]
    if wrong:
        raise ConfigError(f"not the same as that of process 0: {'; '.join(wrong)}; start all from one copy")


def supervise(commands: Sequence[Sequence[str]], **environment: str) -> int:
    """Runs the processes of one run on this machine and returns its exit code: 0, the first code that says what is
    wrong, or 42 where they were stopped or lost one another.

    SIGTERM and SIGINT are passed on as SIGTERM; a second one ends all at once. After one process has failed the others,
    whose collectives it leaves, are given PATIENCE seconds. JAX aborts a process that lost its peers, which no handler
    of its own can turn into an exit code.
    """
    children: list[subprocess.Popen] = []
    asked: list[int] = []

    def pass_on(number, frame) -> None:
        for child in children:
            child.send_signal(signal.SIGKILL if asked else signal.SIGTERM)
        asked.append(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    die_with_us = lambda: ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGKILL)
    try:
        for command in commands:
            # A session of its own: Ctrl-C reaches them through us, once, and not as KeyboardInterrupt.
            children.append(
                subprocess.Popen(command, env=os.environ | environment, start_new_session=True, preexec_fn=die_with_us)
            )
        deadline = float("inf")
        # Every child is asked: one that has ended is seen whichever of the others go on.
        while None in (found := [child.poll() for child in children]) and time.monotonic() < deadline:
            time.sleep(0.05)
            if deadline == float("inf") and any(found):
                deadline = time.monotonic() + PATIENCE
    finally:
        for child in children:
            child.kill()
            child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    codes = [child.returncode for child in children]
    failed = [code for code in codes if code not in (0, LostPeer.exit_code) and code > 0]
    return failed[0] if failed else LostPeer.exit_code if any(codes) else 0


def leave(code: int) -> NoReturn:
    """Ends this process at once: while others wait in a collective, JAX's own way out would hang for minutes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
