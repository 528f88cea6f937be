"""Loggers have the numbers of metrics.jsonl; one that is not there is told at once, one that fails stops no run."""

import errno
import json
import struct
import sys
import time

import pytest

from gentrain import files, plugins
from gentrain.errors import ConfigError, Stopped
from gentrain.reporting import loggers
from gentrain.reporting.loggers import Loggers
from gentrain.reporting.writer import Writer


def test_tensorboard_holds_the_same_numbers(tmp_path, config):
    from tensorboardX.proto import event_pb2

    out = Writer(tmp_path)
    out.begin(config)
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


def test_a_run_goes_on_without_tensorboard_where_it_cannot_be_written(tmp_path, config, monkeypatch):
    out = Writer(tmp_path)
    out.begin(config)

    def full(event):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(out.loggers.open["tensorboard"].file, "write_event", full)
    with pytest.warns(UserWarning, match="tensorboard is not written any more: No space left"):
        out.scalars(1, {"nll": 1.0})
    out.scalars(2, {"nll": 1.0})
    out.close()
    assert [record["step"] for record in files.read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2]


class Fake:
    """A logger that raises what it is given."""

    def __init__(self, error=None):
        self.error, self.steps, self.closed = error, [], 0

    def build(self, workdir, config):
        return self

    def scalars(self, step, values):
        if self.error:
            raise self.error
        self.steps.append(step)

    def close(self):
        self.closed += 1
        raise ValueError("never opened")


def test_one_that_fails_is_left_out_and_the_others_go_on(tmp_path, monkeypatch):
    fakes = {"bad": Fake(RuntimeError("no network\nat all")), "good": Fake()}
    monkeypatch.setattr(loggers, "load", fakes.get)
    assert not Loggers(("good",), tmp_path, {}, primary=False).open
    both = Loggers(("bad", "good"), tmp_path, {})
    with pytest.warns(UserWarning, match=r"bad is not written any more: RuntimeError: no network$") as caught:
        for step in range(3):
            both.scalars(step, {})
    assert len(caught) == 1 and fakes["bad"].closed == 1 and fakes["good"].steps == [0, 1, 2]
    with pytest.warns(UserWarning, match="good is not written any more: ValueError"):
        both.close()
    both = Loggers(("good",), tmp_path, {})
    fakes["good"].error = Stopped("a signal")
    with pytest.raises(Stopped):
        both.scalars(3, {})


def test_one_that_cannot_start_is_told_in_a_line_before_training(tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setattr(fake, "build", lambda workdir, config: (tmp_path / "a file" / "b").mkdir())
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match=r"odd does not start .FileNotFoundError"):
        patch.setattr(loggers, "load", {"odd": fake}.get)
        Loggers(("odd",), tmp_path, {})
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "gentrain.reporting.loggers.wandb", raising=False)
    with pytest.raises(ConfigError, match=r"log.loggers has 'wandb', which needs a package: pip install wandb$"):
        Loggers(("wandb",), tmp_path, {}, primary=False)


def test_a_logger_that_is_not_asked_for_needs_no_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "gentrain.reporting.loggers.wandb", raising=False)
    assert plugins.names("reporting.loggers") == ("tensorboard", "wandb")
    Loggers(("tensorboard",), tmp_path, {}).close()


def records(path):
    """What a file of W&B holds, in LevelDB's log format; a long record goes on in the next block."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, begun = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        length, kind = struct.unpack_from("<HB", data, at + 4)
        if not kind:  # the rest of the block is empty
            at += -at % 32768
            continue
        begun += data[at + 7 : at + 7 + length]
        at += 7 + length
        if 32768 - at % 32768 < 7:
            at += -at % 32768
        if kind in (1, 4):  # all of it, or its last part
            yield Record.FromString(begun)
            begun = b""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_wandb_has_the_numbers_offline_and_goes_on_in_the_same_run(tmp_path, config, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config.log.loggers = ("wandb",)
    for steps in ((1, 2), (1, 3)):  # the second start goes back to step 1
        out = Writer(tmp_path)
        out.begin(config)
        for step in steps:
            out.scalars(step, {"valid/nll": step / 2})
        out.close()
    logged, deadline = [], time.monotonic() + 30
    for path in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")):
        assert path.stem == f"run-{files.read_json(tmp_path / 'wandb.json')['id']}"
        while not (found := [*records(path)]) or not found[-1].HasField("exit"):  # another process writes it
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for items in (record.history.item for record in found if record.HasField("history")):
            values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
            logged.append((values["step"], values["valid/nll"]))
    assert logged == [(1, 0.5), (2, 1.0), (1, 0.5), (3, 1.5)]
