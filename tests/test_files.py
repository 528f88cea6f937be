"""Files of a workdir are whole whenever they are read, and survive kills and resumes."""

import json
import os

import pytest

from gentrain import files
from gentrain.errors import CheckpointError


def test_a_reader_sees_the_whole_old_file_or_the_whole_new_one(tmp_path):
    path = tmp_path / "status.json"
    files.write_json(path, {"state": "training"})
    with open(path) as reader:
        files.write_json(path, {"state": "done"})
        assert json.load(reader) == {"state": "training"} and files.read_json(path) == {"state": "done"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_is_empty(tmp_path):
    assert files.read_json(tmp_path / "none.json") == {} and files.read_jsonl(tmp_path / "none.jsonl") == []


def test_what_cannot_be_written_whole_leaves_what_was(tmp_path):
    path = tmp_path / "status.json"
    files.write_json(path, {"state": "training"})
    with pytest.raises(TypeError):
        files.write_json(path, {"state": object()})
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [path] and files.read_json(path) == {"state": "training"}


def test_contents_are_on_disk_before_the_name_and_the_name_before_it_is_said_to_be_written(tmp_path, monkeypatch):
    path, seen = tmp_path / "status.json", []
    monkeypatch.setattr(
        files.os, "fsync", lambda number: seen.append((os.readlink(f"/proc/self/fd/{number}"), path.exists()))
    )
    files.write_json(path, {})
    (file, named_before), (folder, named_after) = seen
    assert file != folder == str(tmp_path) and not named_before and named_after


def test_what_a_run_can_do_without_ends_no_run(tmp_path):
    with pytest.warns(UserWarning, match="status.json is not written: No such file"):
        files.note_json(tmp_path / "gone" / "status.json", {})


@pytest.mark.parametrize("damage", [b"", b"\0\0\0", b"null", b"7", b"[]", b'{"a": 1', b'{"a": "\xff"}'])
def test_a_damaged_file_is_empty_with_a_warning_or_refused_with_the_fix(tmp_path, damage):
    path = tmp_path / "some.json"
    path.write_bytes(damage)
    with pytest.warns(UserWarning, match="some.json is damaged"):
        assert files.read_json(path) == {}
    with pytest.raises(CheckpointError, match=r"some.json is damaged .* or delete it"):
        files.require_json(path)


BAD_LINES = [
    '{"step": 3, "nl',
    "",
    "null",
    "7",
    '"text"',
    "[1]",
    '{"nll": 3}',
    '{"step": "5"}',
    '{"step": 5, "nll": "low"}',
]


def test_lines_that_are_no_record_are_left_out_and_the_later_line_of_a_step_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first, *others = '{"step": 4, "nll": 1}', '{"step": 2, "nll": 2}', '{"step": 2, "b": 3}', '{"step": 4, "nll": null}'
    path.write_text("\n".join([first, *others]) + "\n")
    merged = [{"step": 2, "nll": 2, "b": 3}, {"step": 4, "nll": None}]
    assert files.read_jsonl(path) == merged
    for bad in (*(line.encode() for line in BAD_LINES), b'{"step": 5, "\xff": 1}'):
        path.write_bytes(b"\n".join([first.encode(), bad, *(line.encode() for line in others)]))
        with pytest.warns(UserWarning, match=r"metrics.jsonl: line 2 cannot be read"):
            assert files.read_jsonl(path) == merged
