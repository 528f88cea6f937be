"""Batches made ahead of the step that needs them."""

import queue
import threading
from collections.abc import Callable, Generator
from typing import Any


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
