"""Nobody reads any more, and the run goes on."""

import contextlib
import os

import pytest

from gentrain import console
from gentrain.reporting.writer import Writer


@pytest.fixture
def pipe():
    """A stream into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        yield stream


def test_a_pipe_that_closes_ends_nothing(pipe):
    with contextlib.redirect_stdout(pipe):
        console.say("one")
        print("two", flush=True)  # goes nowhere from here on
        console.flush()


def test_a_writer_whose_reader_goes_away_writes_on(pipe, tmp_path):
    with contextlib.redirect_stdout(pipe):
        out = Writer(tmp_path)
        out.say("one")
        out.scalars(1, {"nll": 1.0})
        out.say("two")
        out.close()
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
