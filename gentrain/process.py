"""The operating system's side of a run: one job a workdir, signals that ask it to stop, processes that end together."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from gentrain.errors import ConfigError, Stopped, WorkdirInUse


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


def agree(flag: bool) -> bool:
    """Process 0's answer, on all processes: for decisions that depend on a clock."""
    import jax

    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(flag))


def join(coordinator: str, processes: int, index: int, timeout: int = 60) -> None:
    """Makes this process one of `processes`, meeting at coordinator (host:port), or as the cluster says if 'auto'.

    Call before any other use of JAX. A peer that dies is noticed within the heartbeat of 30 s.
    """
    import jax

    address, count, own = (None, None, None) if coordinator == "auto" else (coordinator, processes, index)
    try:
        jax.distributed.initialize(
            address,
            count,
            own,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=30,
            shutdown_timeout_seconds=30,
        )
    except ValueError as error:
        raise ConfigError(f"--coordinator={coordinator}: {str(error).splitlines()[0]}") from None


def leave(code: int) -> NoReturn:
    """Ends this process at once: while others wait in a collective, JAX's own way out would hang for minutes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
