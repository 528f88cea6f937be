"""How fast a run goes, and which of its steps are traced."""

from types import SimpleNamespace

import pytest

from gentrain import devices
from gentrain.reporting import meter
from gentrain.sums import Sum


@pytest.fixture
def two_seconds(monkeypatch):
    """A clock on which two seconds pass between the meter's start and its reading."""
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: next(clock)))


@pytest.mark.parametrize("kind", ["TPU v5 lite", "NVIDIA H100 80GB HBM3"])
def test_the_share_of_a_known_peak(monkeypatch, kind):
    device = type("Device", (), {"device_kind": kind})()
    monkeypatch.setattr(meter.jax, "devices", lambda: [device])
    monkeypatch.setattr(meter.jax, "device_count", lambda: 4)
    one = meter.Meter("generator", parameters=10**9)
    monkeypatch.undo()
    clock = iter([2.0])
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    one.since = 0.0
    one.push({"generator/loss": Sum(3.0, 4000.0)})
    values = one.read()
    peak = next(flops for name, flops in devices.PEAK_FLOPS.items() if kind.startswith(name))
    assert values["tokens_per_second"] == 2000 and values["generator/loss"] == 3 / 4000
    assert values["mfu"] == pytest.approx(6e9 * 2000 / (4 * peak))


def test_an_unknown_device_has_no_share(two_seconds):
    one = meter.Meter("generator", parameters=10)
    one.push({"generator/loss": Sum(3.0, 4000.0)})
    assert one.read().keys() == {"generator/loss", "tokens_per_second"}


@pytest.mark.parametrize(
    ("sums", "rate"),
    [
        ({"generator/loss": Sum(3.0, 600.0)}, 300.0),  # a likelihood is weighed in tokens
        ({"generator/loss": Sum(3.0, 8.0), "generator/entropy": Sum(1.0, 500.0)}, 250.0),  # a loss of 8 sequences
        ({"generator/loss": Sum(3.0, 8.0), "critic/entropy": Sum(1.0, 500.0)}, 4.0),  # another player's
    ],
)
def test_tokens_are_counted_not_sequences(two_seconds, sums, rate):
    one = meter.Meter("generator", parameters=1)
    one.push(sums)
    assert one.read()["tokens_per_second"] == rate


def test_no_more_than_one_step_runs_ahead(monkeypatch):
    waited = []
    monkeypatch.setattr(meter.jax, "block_until_ready", waited.append)
    one = meter.Meter("generator", 1)
    for step in range(3):
        one.push({"loss": Sum(float(step), 1.0)})
    assert [[float(sums[0, 0]) for sums in pending] for pending in waited] == [[], [0.0], [1.0]]


def test_a_reading_is_over_the_steps_since_the_reset(monkeypatch):
    clock = iter([0.0, 4.0, 6.0])
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    one = meter.Meter("generator", 1)
    one.push({"generator/loss": Sum(100.0, 1.0)})
    one.reset()
    one.push({"generator/loss": Sum(6.0, 3.0)})
    one.push({"generator/loss": Sum(2.0, 1.0)})
    assert one.read() == {"generator/loss": 2.0, "tokens_per_second": 2.0}


@pytest.mark.parametrize(
    ("steps", "first", "calls"),
    [
        ((), 0, []),
        ((2, 4), 0, [("start", 2), ("stop", 4)]),
        ((2, 9), 0, [("start", 2), ("stop", "end")]),  # the run ends before
        ((2, 4), 3, []),  # resumed in the middle of it
    ],
)
def test_the_steps_that_are_asked_for_are_traced(monkeypatch, tmp_path, steps, first, calls):
    made = []
    now = first
    monkeypatch.setattr(meter.jax.profiler, "start_trace", lambda folder: made.append(("start", now)))
    monkeypatch.setattr(meter.jax.profiler, "stop_trace", lambda: made.append(("stop", now)))
    with meter.Profile(tmp_path, steps) as profile:
        for now in range(first, 6):
            profile.at(now)
        now = "end"
    assert made == calls
