"""What a run writes down survives kills and resumes."""

import errno
import io
import json
import math

import numpy as np
import pytest

from gentrain import files
from gentrain.datasets.spec import Images, Texts
from gentrain.errors import CheckpointError, Diverged, LostPeer, Stopped
from gentrain.reporting import writer
from gentrain.reporting.writer import Writer


def test_a_line_cut_by_a_kill_is_skipped_and_a_step_done_again_counts_once(tmp_path):
    for step, value in ((1, 0.5), (2, 0.25), (4, 0.75)):
        out = Writer(tmp_path)
        out.scalars(step, {"nll": value})
        out.scalars(step, {"valid/nll": step})
        out.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "nl')
    out = Writer(tmp_path)
    out.scalars(2, {"nll": 0.125, "odd": math.inf})
    out.close()
    with pytest.warns(UserWarning, match="line 7 cannot be read"):
        records = files.read_jsonl(tmp_path / "metrics.jsonl")
    # Two lines of a step are one record; the run went back to step 2, and has not come by 4 again.
    assert [(record["step"], record["nll"]) for record in records] == [(1, 0.5), (2, 0.125)]
    assert [record["valid/nll"] for record in records] == [1, 2]
    assert records[1]["odd"] is None


def test_samples_and_status_are_files(tmp_path):
    out = Writer(tmp_path)
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
    out = Writer(tmp_path)
    out.progress(10, 40)
    out.log(20, "1.5 nats")
    out.close()
    assert capsys.readouterr().out == "step 20/40: 1.5 nats, 10 s left\n"


def test_a_terminal_gets_a_bar_with_the_numbers_in_it(tmp_path, monkeypatch):
    terminal = type("Terminal", (io.StringIO,), {"isatty": lambda self: True})()
    monkeypatch.setattr(writer.sys, "stdout", terminal)
    out = Writer(tmp_path)
    out.progress(0, 4)
    out.advance()
    out.log(1, "1.5 nats")
    out.close()
    assert "1/4 |" in terminal.getvalue() and "1.5 nats" in terminal.getvalue() and "left" not in terminal.getvalue()


def test_only_the_first_process_writes(tmp_path, capsys):
    out = Writer(tmp_path / "none", primary=False)
    out.scalars(1, {"nll": 1.0})
    out.samples(1, Texts(["x"]))
    out.status("done", 1)
    out.say("done")
    out.close()
    assert not (tmp_path / "none").exists() and capsys.readouterr().out == ""


def started(workdir, status, *checkpoints):
    """A writer in a workdir whose last start left a status and checkpoints."""
    workdir.mkdir(exist_ok=True)
    files.write_json(workdir / "status.json", status)
    for name in checkpoints:
        (workdir / "checkpoints" / name).mkdir(parents=True)
    return Writer(workdir)


def test_a_status_says_why_a_run_ended_and_with_which_exit_code(tmp_path):
    out = Writer(tmp_path)
    out.status("training", 7)
    for error, state, code in (
        (Diverged("steep\nand long"), "failed", 3),
        (Stopped("SIGTERM"), "stopped", 42),
        (LostPeer("gone"), "stopped", 42),
        (OSError(errno.ENOSPC, "No space left"), "failed", 5),
        (ZeroDivisionError("a fault"), "failed", 1),
    ):
        out.ended(error)
        status = files.read_json(tmp_path / "status.json")
        assert (status["state"], status["step"], status["exit_code"]) == (state, 7, code)
        assert status["reason"].startswith(type(error).__name__) and "\n" not in status["reason"]
    out.close()


@pytest.mark.parametrize("state", ["starting", "training"])
def test_a_start_that_was_killed_is_told_by_the_next(tmp_path, capsys, state):
    out = started(tmp_path, {"state": state, "step": 5}, "4")
    out.check_before()
    assert "the last start ended without a word at step 5: killed" in capsys.readouterr().out
    out.status("starting")
    assert files.read_json(tmp_path / "status.json")["step"] == 5  # a start that ends early forgets no step
    out.close()


def test_checkpoints_that_are_gone_are_no_reason_to_begin_anew_in_silence(tmp_path, capsys):
    for number, (state, checkpoints) in enumerate((("stopped", ()), ("done", ()), ("done", ("quarantine-5",)))):
        out = started(tmp_path / str(number), {"state": state, "step": 5}, *checkpoints)
        with pytest.raises(CheckpointError, match=r"checkpoints has no checkpoint.*step 5.*delete status.json"):
            out.check_before()
        out.close()
    assert capsys.readouterr().out == ""
    out = started(tmp_path / "early", {"state": "training", "step": 5}, "5.orbax-checkpoint-tmp")
    out.check_before()  # killed before its first checkpoint
    assert "has no checkpoint; beginning anew, though step 5 was reached" in capsys.readouterr().out
    out.close()
    out = started(tmp_path / "fresh", {"state": "stopped", "step": None})
    out.check_before()
    assert capsys.readouterr().out == ""
    out.close()


SHOWN = {"samples": Texts(["one", "two"]), "pictures": Images(np.zeros((1, 2, 2, 1), np.uint8))}


def test_numbers_that_cannot_be_kept_are_printed(tmp_path, capsys, monkeypatch):
    def read_only(path):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    about = {"step": 3, "config": {"evaluate.split": "valid"}}
    monkeypatch.setattr(files, "replacing", read_only)
    with pytest.warns(UserWarning, match="not kept: .*Read-only file system"):
        writer.show(tmp_path, "evaluate", about, {"valid/nll": 1.5}, SHOWN)
    assert capsys.readouterr().out == "one\ntwo\nvalid/nll 1.5\n"
    with pytest.raises(OSError, match="Read-only"):  # there is nothing else to be had from it
        writer.show(tmp_path, "sample", about, {}, SHOWN)


def test_an_evaluation_is_kept_beside_the_others_and_never_over_them(tmp_path, capsys):
    folder = tmp_path / "evaluations"

    def evaluate(step, split, numbers):
        writer.show(tmp_path, "evaluate", {"step": step, "config": {"evaluate.split": split}}, numbers, SHOWN)
        return capsys.readouterr().out.splitlines()[-3:]

    first = evaluate(3, "valid", {"valid/nll": 1.5, "odd": math.nan})
    assert first == [f"{folder}/0000003-valid{end}" for end in (".txt", "-pictures.png", ".json")]
    known = {path: path.read_bytes() for path in folder.iterdir()}
    assert len(known) == 3 and files.read_json(folder / "0000003-valid.json")["metrics"] == {
        "valid/nll": 1.5,
        "odd": None,
    }
    assert evaluate(3, "valid", {"valid/nll": 1.5, "odd": math.nan}) == first  # the same once more
    others = [evaluate(3, "test", {"test/nll": 1.5}), evaluate(4, "valid", {}), evaluate(3, "valid", {"fid": 2.0})]
    assert others[2][-1] == f"{folder}/0000003-valid-2.json" and len(list(folder.iterdir())) == 4 * 3
    assert {path: path.read_bytes() for path in known} == known
