"""The table of results says what the runs' files say, and where they ran."""

import json

from launch import results

CONFIG = {"objective.name": "likelihood", "evaluate.evaluators": ["likelihood", "exact"]}
FINAL = {
    "valid/nll": 1.5,
    "valid/perplexity": 4.5,
    "exact/entropy": 2.0,
    "exact/forward_kl": 0.25,
    "generator/loss": 9.0,
}


def write(folder, final):
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"final": final, "runs": {folder.name: {"folder": "."}}}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "goodput.json").write_text(json.dumps({"wall": 12.3}))
    provenance = {
        "date": "2026-01-02",
        "commit": "abc",
        "command": "python -m launch --config=x.py",
        "hardware": "8 x H",
    }
    (folder / "provenance.json").write_text(json.dumps(provenance | {"packages": {"jax": "0.9"}}))


def test_a_row_a_variant_and_a_column_for_what_has_a_direction_of_its_own(tmp_path, capsys):
    for name, nll in (("a", 1.5), ("b", 1.25)):
        write(tmp_path / "sweep" / name, FINAL | {"valid/nll": nll})
    (tmp_path / "sweep/report.json").write_text(json.dumps({"runs": {name: {"folder": name} for name in "ab"}}))
    assert results.main(["results", str(tmp_path / "sweep")]) == 0
    text = capsys.readouterr().out
    assert "2026-01-02, commit abc, 8 x H, jax 0.9:" in text and "python -m launch --config=x.py" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| run | valid/nll | exact/forward_kl | seconds |"
    assert rows[2:] == ["| a | 1.5 | 0.25 | 12 |", "| b | 1.25 | 0.25 | 12 |"]


def test_published_numbers_stand_beside_ours(tmp_path, monkeypatch, capsys):
    write(tmp_path / "run", FINAL)
    monkeypatch.setattr(results, "published_numbers", lambda name: {"valid/nll": "1.4 (A., 2020)"})
    assert results.main(["results", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert "valid/nll (here / published)" in text and "| 1.5 / 1.4 (A., 2020) |" in text


def test_a_folder_without_a_finished_run_is_one_line(tmp_path, capsys):
    assert results.main(["results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
