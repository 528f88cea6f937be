"""The processes of one run on one machine, as one command."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence

from gentrain.errors import LostPeer

PATIENCE = 20  # seconds that processes are given to end by themselves after one of them failed
PARENT_DIED = 1  # prctl's PR_SET_PDEATHSIG


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
