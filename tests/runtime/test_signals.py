"""Signals as requests to save and go."""

import signal

import pytest
from jax.experimental import multihost_utils

from gentrain.errors import Stopped
from gentrain.runtime import signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_cuts_in_at_once_unless_deferred(number):
    before = signal.getsignal(number)
    with signals.Stop() as stop, pytest.raises(Stopped, match=number.name):
        signal.raise_signal(number)
    with signals.Stop() as stop, stop.deferred():
        with stop.deferred(False):
            pass
        assert not stop.at(1)
        signal.raise_signal(number)  # a step or a save goes on; whoever asks is told
        assert stop.at(2)
        with pytest.raises(Stopped), stop.deferred(False):
            pytest.fail("a request that waits comes before what could be cut short")
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_the_process_at_once(monkeypatch):
    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(signals.os, "_exit", leave)
    with signals.Stop() as stop, stop.deferred():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            signal.raise_signal(signal.SIGTERM)


def test_processes_stop_as_one(monkeypatch):
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda asked: asked == 2)
    before = signal.getsignal(signal.SIGTERM)
    with signals.Stop(alone=False) as stop:
        assert signal.getsignal(signal.SIGTERM) == before  # JAX's own notifier listens
        assert [stop.at(step) for step in (2, 3, 4)] == [False, True, True]


def test_a_request_that_no_exception_can_carry_waits_to_be_asked_for():
    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with signals.Stop() as stop:
        Dropped()
        assert stop.at(0)
