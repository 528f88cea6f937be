"""What a run writes down survives kills and resumes."""

import io
import json
import math

import numpy as np
import pytest

from gentrain import files
from gentrain.datasets.spec import Images, Texts
from gentrain.reporting import writer
from gentrain.reporting.writer import Writer


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
    with pytest.warns(UserWarning, match="line 7 cannot be read"):
        records = files.read_jsonl(tmp_path / "metrics.jsonl")
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


def test_the_time_that_is_left_counts_from_where_this_start_began(tmp_path, monkeypatch, capsys):
    clock = iter([100.0, 105.0])
    monkeypatch.setattr(writer.time, "monotonic", lambda: next(clock))
    out = Writer(tmp_path, tensorboard=False)
    out.progress(10, 40)
    out.log(20, "1.5 nats")
    out.close()
    assert capsys.readouterr().out == "step 20/40: 1.5 nats, 10 s left\n"


def test_a_terminal_gets_a_bar_with_the_numbers_in_it(tmp_path, monkeypatch):
    terminal = type("Terminal", (io.StringIO,), {"isatty": lambda self: True})()
    monkeypatch.setattr(writer.sys, "stdout", terminal)
    out = Writer(tmp_path, tensorboard=False)
    out.progress(0, 4)
    out.advance()
    out.log(1, "1.5 nats")
    out.close()
    assert "1/4 |" in terminal.getvalue() and "1.5 nats" in terminal.getvalue() and "left" not in terminal.getvalue()


def test_only_the_first_process_writes(tmp_path, capsys):
    out = Writer(tmp_path / "none", tensorboard=True, primary=False)
    out.scalars(1, {"nll": 1.0})
    out.samples(1, Texts(["x"]))
    out.status("done", 1)
    out.say("done")
    out.close()
    assert not (tmp_path / "none").exists() and capsys.readouterr().out == ""
