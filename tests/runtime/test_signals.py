"""Signals as requests to save and go."""

import signal

import pytest
from jax.experimental import multihost_utils

from gentrain.errors import Stopped
from gentrain.runtime import signals


@pytest.fixture(autouse=True)
def terminal():
    """SIGHUP as a terminal leaves it: whoever started the tests may ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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


def test_under_nohup_a_terminal_that_closes_is_nothing():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for alone in (True, False):
        with signals.Stop(alone) as stop, stop.deferred():
            signal.raise_signal(signal.SIGHUP)
        assert not stop.requested


def test_of_several_processes_one_that_loses_its_terminal_asks_as_sigterm_does():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))  # in the place of JAX's notifier
    with signals.Stop(alone=False):
        signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def test_several_processes_drop_an_evaluation_between_two_evaluators(monkeypatch):
    """Each call of all processes gets the next whole number, also where the step stays the same."""
    asked, measured = [], []
    monkeypatch.setattr(
        multihost_utils, "reached_preemption_sync_point", lambda number: asked.append(number) or number == 3
    )
    stop = signals.Stop(alone=False)
    first, second = stop.before(measured.append), stop.before(measured.append)
    assert not stop.at(7)
    first("one")
    with pytest.raises(Stopped):
        second("two")
    assert stop.at(7) and measured == ["one"] and asked == [1, 2, 3]
