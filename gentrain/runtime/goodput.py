"""What a run spends its time on, and when one thing takes so long that a peer must be stuck."""

import faulthandler
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import jax

from gentrain import files
from gentrain.errors import LostPeer

T = TypeVar("T")
KINDS = ("start", "compile", "train", "evaluate", "save", "restore", "lost")
FIRST = 1800.0  # seconds that the first phase of a kind may take, which compiles, or reads what is not cached
SLOWER = 10  # a phase is stuck that takes so many times as long as the longest of its kind before
LOWERING = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # JAX's events
COMPILING = "/jax/core/compile/backend_compile_duration"
KEPT = 100  # saves whose time is remembered, for what was lost after them


class Phases:
    """A ledger of seconds by kind, kept in goodput.json across starts, and a watch over how long each phase takes.

    Kinds: train, evaluate, save and restore are phases of that name; start is all outside of them; compile is time in
    the compiler, in whatever phase; lost is what was trained and then trained again, after a kill or a lost peer. They
    sum to `wall`, the time since the run's starts; the time between starts is not counted. goodput is train / wall.
    first_step has the seconds in which the newest start traced, lowered and compiled the training step.

    With stuck_seconds a phase that outlasts both that and SLOWER times the longest of its kind ends the process with
    exit code 42 and every thread's stack: a peer that hangs leaves the others in a collective out of which neither an
    exception nor a signal comes. Seconds are counted while the process runs, not while it is suspended.
    """

    def __init__(self, path: Path | None, stuck_seconds: float = 0.0):
        self.path = path
        self.stuck_seconds = stuck_seconds
        self.seconds, self.trained_at, starts = read(path)
        self.starts = starts + 1
        self.events = {LOWERING: 0.0, COMPILING: 0.0}  # seconds of this start
        self.first_step: dict[str, float] = {}  # seconds of this start until the first step was under way, by part
        self.kinds = ["start"]  # of the phases that are under way, the innermost last
        self.longest: dict[str, float] = {}  # seconds of the longest phase of each kind, the first left out
        self.since = time.monotonic()  # when seconds were last counted
        self.waited = 0.0  # seconds that the innermost phase has taken
        self.closed = threading.Event()

    def __enter__(self) -> "Phases":
        jax.monitoring.register_event_duration_secs_listener(self._compiled)
        if self.stuck_seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.closed.set()
        jax.monitoring.unregister_event_duration_listener(self._compiled)
        self.write()

    @contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """What is done inside counts as `kind`, and may not take for ever."""
        self._count()
        self.kinds.append(kind)
        began = time.monotonic()
        self.waited = 0.0
        try:
            yield
        finally:
            self._count()
            self.kinds.pop()
            first = kind not in self.longest  # it compiles, so its length says nothing
            self.longest[kind] = 0.0 if first else max(self.longest[kind], time.monotonic() - began)
            self.waited = 0.0

    def timed(self, function: Callable[..., T], say: Callable[[str], object]) -> Callable[..., T]:
        """The function, whose first call says how long it took to trace, lower and compile it."""

        def call(*arguments):
            if self.first_step:
                return function(*arguments)
            say("compiling the step …")
            before, began = dict(self.events), time.monotonic()
            result = function(*arguments)
            lower, compiled = (self.events[event] - before[event] for event in (LOWERING, COMPILING))
            trace = max(time.monotonic() - began - lower - compiled, 0.0)
            self.first_step = {"trace": round(trace, 3), "lower": round(lower, 3), "compile": round(compiled, 3)}
            say(f"traced in {trace:.1f} s, lowered in {lower:.1f} s, compiled in {compiled:.1f} s")
            return result

        return call

    def saved(self, step: int) -> None:
        """Notes how long was trained up to a step that is being saved."""
        self._count()
        trained_at = [*self.trained_at.items(), (step, self.seconds["train"])]
        self.trained_at = dict(trained_at[-KEPT:])
        self.write()

    def restored(self, step: int) -> None:
        """What was trained after this step, by an earlier start, is lost."""
        kept = self.trained_at.get(step, self.seconds["train"])
        self.seconds["lost"] += self.seconds["train"] - kept
        self.seconds["train"] = kept
        self.trained_at = {saved: seconds for saved, seconds in self.trained_at.items() if saved <= step}

    def write(self) -> None:
        """Writes the ledger, where there is a file for it."""
        if not self.path:
            return
        self._count()
        seconds = {kind: round(value, 3) for kind, value in self.seconds.items()}
        wall = round(sum(seconds.values()), 3)
        ledger = {
            "seconds": seconds,
            "wall": wall,
            "goodput": round(seconds["train"] / max(wall, 1e-9), 3),
            "starts": self.starts,
            "first_step": self.first_step,
            "trained_at": self.trained_at,
        }
        files.note_json(self.path, ledger)

    def _count(self) -> None:
        """Adds the time since the last count to the innermost phase."""
        now = time.monotonic()
        self.seconds[self.kinds[-1]] += now - self.since
        self.since = now

    def _compiled(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Called by JAX after each of its events."""
        if event not in self.events or threading.current_thread() is not threading.main_thread():
            return
        self.events[event] += duration_secs
        if event == COMPILING:
            self.seconds["compile"] += duration_secs
            self.seconds[self.kinds[-1]] -= duration_secs  # where _count will put it

    def _watch(self) -> None:
        """Looks once a second, in a thread of its own, whether a phase is stuck."""
        while not self.closed.wait(1.0):
            kind = self.kinds[-1]
            limit = max(self.stuck_seconds, SLOWER * self.longest[kind] if kind in self.longest else FIRST)
            self.waited += 1.0
            if self.waited > limit:
                faulthandler.dump_traceback(file=sys.stderr)
                message = f"LostPeer: {kind} took over {limit:.0f} s, so another process hangs; stacks above"
                print(message, file=sys.stderr, flush=True)
                os._exit(LostPeer.exit_code)


def read(path: Path | None) -> tuple[dict[str, float], dict[int, float], int]:
    """What an earlier start left: seconds by kind; step -> seconds of training up to its save; starts. All of it is
    zero where there is nothing or, with a warning, where it is damaged."""
    ledger = files.read_json(path) if path else {}
    try:
        seconds = {kind: float(ledger["seconds"][kind]) for kind in KINDS}
        trained_at = {int(step): float(value) for step, value in ledger["trained_at"].items()}
        return seconds, trained_at, int(ledger["starts"])
    except (KeyError, TypeError, ValueError, AttributeError):
        if ledger:
            warnings.warn(f"{path} is damaged, and is taken for empty", stacklevel=3)
        return dict.fromkeys(KINDS, 0.0), {}, 0
