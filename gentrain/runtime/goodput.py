"""What a run spends its time on, and when one thing takes so long that a peer must be stuck."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from gentrain import files
from gentrain.errors import LostPeer

FIRST = 1800.0  # seconds that the first phase of a kind may take, which compiles, or reads what is not cached
SLOWER = 10  # so many times the longest phase of its kind before is stuck
COMPILING = "/jax/core/compile/backend_compile_duration"
KEPT = 100  # saves whose time is remembered, for what was lost after them


class Phases:
    """A ledger of seconds by kind, kept in goodput.json across starts, and a watch over how long each phase takes.

    start: all outside the phases; compile: in the compiler, in whatever phase; train, evaluate, save, restore: what is
    said; lost: trained and then trained again, after a kill or a lost peer. They sum to `wall`, the time since the
    run's starts; the time between them is not known. goodput is train / wall.

    With stuck_seconds a phase that outlasts both that and SLOWER times the longest of its kind ends the process with
    exit code 42 and every thread's stack: a peer that hangs leaves the others in a collective out of which neither an
    exception nor a signal comes. Seconds are counted while the process runs, not while it is suspended.
    """

    def __init__(self, path: Path | None, stuck_seconds: float = 0.0):
        self.path, self.stuck = path, stuck_seconds
        before = files.read_json(path) if path else {}
        self.seconds = {kind: 0.0 for kind in ("start", "compile", "train", "evaluate", "save", "restore", "lost")}
        self.seconds |= before.get("seconds", {})
        self.trained: dict[str, float] = before.get("trained_at", {})  # step -> seconds of training up to its save
        self.starts, self.kinds, self.longest = before.get("starts", 0) + 1, ["start"], dict[str, float]()
        self.since, self.waited = time.monotonic(), 0.0
        self.closed = threading.Event()

    def __enter__(self) -> "Phases":
        jax.monitoring.register_event_duration_secs_listener(self._compiled)
        if self.stuck:
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
        began, self.waited = time.monotonic(), 0.0
        try:
            yield
        finally:
            self._count()
            self.kinds.pop()
            # Not of the first, which compiles.
            self.longest[kind] = max(self.longest[kind], time.monotonic() - began) if kind in self.longest else 0.0
            self.waited = 0.0

    def saved(self, step: int) -> None:
        self._count()
        self.trained = dict([*self.trained.items(), (str(step), self.seconds["train"])][-KEPT:])
        self.write()

    def restored(self, step: int) -> None:
        """What was trained after this step, by an earlier start, is lost."""
        kept = self.trained.get(str(step), self.seconds["train"])
        self.seconds["lost"] += self.seconds["train"] - kept
        self.seconds["train"] = kept
        self.trained = {at: seconds for at, seconds in self.trained.items() if int(at) <= step}

    def write(self) -> None:
        if self.path:
            self._count()
            told = {kind: round(seconds, 3) for kind, seconds in self.seconds.items()}
            wall = round(sum(told.values()), 3)
            rest = {"goodput": round(told["train"] / max(wall, 1e-9), 3), "starts": self.starts}
            files.write_json(self.path, {"seconds": told, "wall": wall, **rest, "trained_at": self.trained})

    def _count(self) -> None:
        now = time.monotonic()
        self.seconds[self.kinds[-1]] += now - self.since
        self.since = now

    def _compiled(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILING and threading.current_thread() is threading.main_thread():
            self.seconds["compile"] += duration_secs
            self.seconds[self.kinds[-1]] -= duration_secs  # where _count will put it

    def _watch(self) -> None:
        while not self.closed.wait(1.0):
            kind = self.kinds[-1]
            limit = max(self.stuck, SLOWER * self.longest[kind] if kind in self.longest else FIRST)
            self.waited += 1.0
            if self.waited > limit:
                faulthandler.dump_traceback(file=sys.stderr)
                print(
                    f"LostPeer: {kind} took over {limit:.0f} s, so another process hangs; stacks above", file=sys.stderr
                )
                sys.stderr.flush()
                os._exit(LostPeer.exit_code)
