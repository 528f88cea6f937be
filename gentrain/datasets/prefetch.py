"""Which batch a step has, and batches made ahead of the step that needs them."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

from gentrain.errors import ConfigError


def batch_number(step: int, left_out: Sequence[tuple[int, int]]) -> int:
    """The number of a step's batch: the step-th, from 0, that is in none of the (first, after the last) ranges."""
    number, covered = step, 0
    for first, end in sorted(left_out):
        first = max(first, covered)
        if number >= first and end > first:
            number += end - first
        covered = max(covered, end)
    return number


def all_left_out(wanted: list[tuple[int, int]], before: list[tuple[int, int]], step: int) -> list[tuple[int, int]]:
    """The ranges of batches that are left out from a step on, with those of before, which stay.

    Raises ConfigError for a new one of batches that were trained on.
    """
    for pair in (pair for pair in wanted if pair not in before):
        if pair[0] < (number := batch_number(step, before)):
            rewind = "rewind to a checkpoint before them, as with --rewind=STEP"
            raise ConfigError(f"data.skip_batches has {pair}, but the run has trained up to batch {number}: {rewind}")
    return list(dict.fromkeys([*before, *wanted]))


def prefetch(make: Callable[[int], Any], start: int, stop: int, depth: int) -> Generator[tuple[int, Any]]:
    """Yields (step, make(step)) for start <= step < stop in order, `depth` of them made ahead in a thread.

    Without a thread where depth is 0. What make raises is raised here, at its step; closing the generator ends the
    thread after the make that it is in.
    """
    if not depth:
        yield from ((step, make(step)) for step in range(start, stop))
        return
    ready: queue.SimpleQueue = queue.SimpleQueue()
    free_places, closed = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        for step in range(start, stop):
            free_places.acquire()
            if closed.is_set():
                return
            try:
                ready.put((make(step), None))
            except BaseException as error:
                ready.put((None, error))
                return

    threading.Thread(target=work, name="prefetch", daemon=True).start()
    try:
        for step in range(start, stop):
            value, error = ready.get()
            if error is not None:
                raise error
            free_places.release()
            yield step, value
    finally:
        closed.set()
        free_places.release()
