"""Signals that ask a run to stop, and its way out."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from gentrain import console
from gentrain.errors import Stopped

UNRAISABLE = ("_xla_gc_callback", "__del__")  # functions, JAX's own among them, out of which no exception comes


class Stop:
    """SIGTERM, SIGINT and SIGHUP (unless it is ignored, as under nohup) as a request to save and go.

    Outside of `deferred()` the request raises Stopped where the program stands; inside it only sets `requested`, so
    that an update or a save is never cut in two. A second signal ends the process at once: what is committed on disk
    stays good. In a run of several processes JAX's own notifier sees SIGTERM to any of them, and `at(step)` is True on
    all at the same one of the calls that all of them make.
    """

    def __init__(self, alone: bool = True):
        """alone: whether this process is the whole run."""
        self.requested = False
        self._deferred = False
        self._alone = alone
        self._asked = 0  # how often several processes asked whether to stop
        self._handlers_before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        if self._alone:
            self._handlers_before = take_over(self._handle)
        elif signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            self._handlers_before[signal.SIGHUP] = signal.signal(signal.SIGHUP, as_sigterm)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested = True
        # No exception comes out of a callback of the garbage collector: whoever looks at `requested` next has to stop.
        while frame and frame.f_code.co_name not in UNRAISABLE:
            frame = frame.f_back
        if not self._deferred and not frame:
            raise Stopped(f"stopped by {signal.Signals(number).name}")

    @contextlib.contextmanager
    def deferred(self, defer: bool = True) -> Iterator[None]:
        """Inside, a request only sets `requested`. With defer=False it raises Stopped again, at once if one waits."""
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

        self._asked += 1  # JAX agrees on the next whole number that all of them will come by
        self.requested = self.requested or multihost_utils.reached_preemption_sync_point(self._asked)
        return self.requested

    def before(self, evaluate: Callable) -> Callable:
        """The same function, which first raises Stopped, on every process, if it is time to go."""

        def unless_stopped(*arguments):
            if not self._alone and self.at(0):
                raise Stopped("stopped by a signal")
            return evaluate(*arguments)

        return unless_stopped


def take_over(handler: Callable) -> dict[signal.Signals, Any]:
    """Lets a function handle the signals that ask to stop; returns their handlers before."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    return {number: signal.signal(number, handler) for number in numbers}


def as_sigterm(number, frame) -> None:
    """Handles a signal as if it were SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)


def leave(code: int) -> NoReturn:
    """Ends this process at once: while others wait in a collective, JAX's own way out would hang for minutes."""
    console.flush()
    os._exit(code)
