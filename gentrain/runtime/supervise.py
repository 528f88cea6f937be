"""The processes of one run on one machine, as one command."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from gentrain.errors import LostPeer
from gentrain.runtime.signals import take_over

PATIENCE = 20  # seconds that processes are given to end by themselves after one of them failed
PARENT_DIED = 1  # prctl's PR_SET_PDEATHSIG


def supervise(commands: Sequence[Sequence[str]], **environment: str) -> int:
    """Runs the processes of one run on this machine and returns its exit code: 0, the first code that says what is
    wrong, or 42 where they were stopped or lost one another.

    SIGTERM, SIGINT and SIGHUP are passed on as SIGTERM; a second one ends all at once. After one process has failed the
    others, whose collectives it leaves, are given PATIENCE seconds. JAX aborts a process that lost its peers, which no
    handler of its own can turn into an exit code.
    """
    children: list[subprocess.Popen] = []
    signals: list[int] = []  # that have come so far

    def pass_on(number, frame) -> None:
        for child in children:
            child.send_signal(signal.SIGKILL if signals else signal.SIGTERM)
        signals.append(number)

    handlers_before = take_over(pass_on)
    try:
        for command in commands:
            # A session of its own: Ctrl-C reaches the child through this process, once, and not as KeyboardInterrupt.
            options: dict[str, Any] = {"start_new_session": True, "preexec_fn": die_with_parent}
            children.append(subprocess.Popen(command, env=os.environ | environment, **options))
        deadline = float("inf")
        # All of them are polled every time: one that has failed is seen while the others go on.
        while None in (codes := [child.poll() for child in children]) and time.monotonic() < deadline:
            time.sleep(0.05)
            if deadline == float("inf") and any(codes):
                # One that SIGTERM could kill had not met the others yet, so there is nothing that they could save.
                deadline = time.monotonic() + (0 if -signal.SIGTERM in codes else PATIENCE)
    finally:
        for child in children:
            child.kill()
            child.wait()
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
    return exit_code([child.returncode for child in children])


def die_with_parent() -> None:
    """Called in a child before its program starts: it is killed when its parent dies, however that dies."""
    ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGKILL)


def exit_code(codes: Sequence[int]) -> int:
    """The exit code of a run whose processes ended with these, negative where a signal ended one."""
    for code in codes:
        if code > 0 and code != LostPeer.exit_code:
            return code
    return LostPeer.exit_code if any(codes) else 0
