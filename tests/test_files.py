"""Files of a workdir are whole whenever they are read, and survive kills and resumes."""

import json

from gentrain import files


def test_a_reader_sees_the_whole_old_file_or_the_whole_new_one(tmp_path):
    path = tmp_path / "status.json"
    files.write_json(path, {"state": "training"})
    with open(path) as reader:
        files.write_json(path, {"state": "done"})
        assert json.load(reader) == {"state": "training"} and files.read_json(path) == {"state": "done"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_is_empty(tmp_path):
    assert files.read_json(tmp_path / "none.json") == {} and files.read_jsonl(tmp_path / "none.jsonl") == []


def test_a_line_cut_by_a_kill_is_skipped_and_the_later_line_of_a_step_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 4, "nll": 1}', '{"step": 2, "nll": 2}', '{"step": 2, "valid/nll": 3}', '{"step": 4, "nll": 5}']
    path.write_text("\n".join([*lines, '{"step": 3, "nl']))
    assert files.read_jsonl(path) == [{"step": 2, "nll": 2, "valid/nll": 3}, {"step": 4, "nll": 5}]
