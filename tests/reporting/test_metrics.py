"""What a run writes down survives kills and resumes."""

import io
import json
import math

import numpy as np
import pytest

from gentrain import devices, metrics
from gentrain.sums import Images, Sum, Texts, Writer


def test_sums_add_before_they_divide():
    added = metrics.add([{"nll": Sum(6.0, 2.0)}, {"nll": Sum(1.0, 8.0), "other": Sum(0.0, 0.0)}])
    assert metrics.mean(added["nll"]) == 0.7 and math.isnan(metrics.mean(added["other"]))


def test_a_line_cut_by_a_kill_is_skipped_and_a_step_done_again_counts_once(tmp_path):
    for step, value in ((1, 0.5), (4, 0.75), (2, 0.25)):
        out = Writer(tmp_path, tensorboard=False)
        out.scalars(step, {"nll": value})
        out.scalars(step, {"valid/nll": step})
        out.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "nl')
    out = Writer(tmp_path, tensorboard=False)
    out.scalars(2, {"nll": 0.125, "odd": math.inf})
    out.close()
    records = metrics.read_jsonl(tmp_path / "metrics.jsonl")
    assert [(record["step"], record["nll"]) for record in records] == [(1, 0.5), (2, 0.125), (4, 0.75)]
    assert [record["valid/nll"] for record in records] == [1, 2, 4]  # two lines of a step are one record
    assert records[1]["odd"] is None


def test_tensorboard_holds_the_same_numbers(tmp_path):
    from tensorboardX.proto import event_pb2

    out = Writer(tmp_path, tensorboard=True)
    out.scalars(7, {"valid/nll": 1.5})
    out.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, values = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        values += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    assert values == [(7, "valid/nll", 1.5)]


def test_samples_and_status_are_files(tmp_path):
    out = Writer(tmp_path, tensorboard=False)
    out.samples(3, Texts(["one", "two"]))
    out.samples(4, Images(np.zeros((5, 8, 8, 1), np.uint8)))
    out.status("training", 3)
    out.status("stopped")
    out.close()
    assert (tmp_path / "samples" / "0000003.txt").read_text() == "one\ntwo\n"
    assert (tmp_path / "samples" / "0000004.png").read_bytes()[:4] == b"\x89PNG"
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "stopped" and status["step"] == 3


def test_a_reader_sees_the_whole_old_file_or_the_whole_new_one(tmp_path):
    path = tmp_path / "status.json"
    metrics.write_json(path, {"state": "training"})
    with open(path) as reader:
        metrics.write_json(path, {"state": "done"})
        assert json.load(reader) == {"state": "training"} and metrics.read_json(path) == {"state": "done"}
    assert list(tmp_path.iterdir()) == [path]


def test_the_time_that_is_left_counts_from_where_this_start_began(tmp_path, monkeypatch, capsys):
    clock = iter([100.0, 105.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    out = Writer(tmp_path, tensorboard=False)
    out.progress(10, 40)
    out.log(20, "1.5 nats")
    out.close()
    assert capsys.readouterr().out == "step 20/40: 1.5 nats, 10 s left\n"


def test_a_terminal_gets_a_bar_with_the_numbers_in_it(tmp_path, monkeypatch):
    terminal = type("Terminal", (io.StringIO,), {"isatty": lambda self: True})()
    monkeypatch.setattr(metrics.sys, "stdout", terminal)
    out = Writer(tmp_path, tensorboard=False)
    out.progress(0, 4)
    out.advance()
    out.log(1, "1.5 nats")
    out.close()
    assert "1/4 |" in terminal.getvalue() and "1.5 nats" in terminal.getvalue() and "left" not in terminal.getvalue()


def test_only_the_first_process_writes(tmp_path):
    out = Writer(tmp_path / "none", tensorboard=True, primary=False)
    out.scalars(1, {"nll": 1.0})
    out.samples(1, Texts(["x"]))
    out.status("done", 1)
    out.close()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["TPU v5 lite", "NVIDIA H100 80GB HBM3"])
def test_the_share_of_a_known_peak(monkeypatch, kind):
    device = type("Device", (), {"device_kind": kind})()
    monkeypatch.setattr(metrics.jax, "devices", lambda: [device])
    monkeypatch.setattr(metrics.jax, "device_count", lambda: 4)
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    meter = metrics.Meter("generator", parameters=10**9)
    meter.pending.append({"generator/loss": Sum(3.0, 4000.0)})
    values = meter.read()
    peak = next(flops for name, flops in devices.PEAK_FLOPS.items() if kind.startswith(name))
    assert values["tokens_per_second"] == 2000 and values["generator/loss"] == 3 / 4000
    assert values["mfu"] == pytest.approx(6e9 * 2000 / (4 * peak))
