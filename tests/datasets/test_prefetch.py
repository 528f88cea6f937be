import threading
import time

import pytest

from gentrain.datasets.prefetch import batch_number, prefetch


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def gone():
    deadline = time.monotonic() + 5
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not workers()


@pytest.mark.parametrize("depth", [0, 1, 3, 50])
def test_order(depth):
    assert list(prefetch(lambda step: step * step, 5, 25, depth)) == [(step, step * step) for step in range(5, 25)]
    assert gone()


def test_exactly_depth_are_made_ahead():
    made = []
    batches = prefetch(made.append, 0, 100, 3)
    next(batches)
    next(batches)
    time.sleep(0.2)
    assert made == [0, 1, 2, 3, 4]
    batches.close()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_exception_surfaces_at_its_step(depth):
    def make(step):
        if step == 3:
            raise ValueError("broken batch")
        return step

    batches = prefetch(make, 0, 10, depth)
    assert [next(batches)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken batch"):
        next(batches)
    assert gone()


def test_closing_ends_the_thread():
    batches = prefetch(lambda step: step, 0, 10**9, 2)
    next(batches)
    assert workers()
    batches.close()
    assert gone()


def test_batches_that_are_left_out_have_no_step():
    for left_out in ([], [(3, 5)], [(7, 9), (0, 2), (1, 4)], [(4, 6), (4, 6), (6, 7)]):
        kept = [number for number in range(40) if not any(first <= number < end for first, end in left_out)]
        assert [batch_number(step, left_out) for step in range(len(kept))] == kept
