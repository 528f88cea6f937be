"""The tables of results say what the reports say, and where the runs ran."""

import pytest

from gentrain import files
from gentrain.reporting import report
from launch import results

REACHED = {"valid/nll": 1.5, "valid/perplexity": 4.5, "generator/loss": 9.0, "quality/bleu_4": 0.3}
REACHED |= {"quality/self_bleu_4": 0.4, "quality/jsd_4": 0.25, "quality/jsd_4_floor": 0.125}
PROVENANCE = {"date": "2026-01-02", "commit": "abc", "command": "python -m launch --config=x.py"}


@pytest.fixture
def reported(tmp_path, write_run):
    """reported({run: (changes to the config, changes of what was reached)}): the folder of their report."""

    def write(described):
        for name, (changes, reached) in described.items():
            folder = tmp_path / name
            write_run(folder, [{"step": 1, **REACHED, **reached}], changes | {"evaluate.evaluators": EVALUATORS})
            files.write_json(folder / "goodput.json", {"wall": 12.3})
            here = {"hardware": "8 x H", "packages": {"jax": "0.9"}}
            files.write_json(folder / "provenance.json", PROVENANCE | here)
        report.compare({name: tmp_path / name for name in described}, tmp_path)
        return str(tmp_path)

    return write


EVALUATORS = ["likelihood", "text_quality"]
SAMPLED = {"objective.name": "scheduled_sampling"}


def test_a_row_a_variant_and_a_column_for_what_is_compared(reported, capsys):
    nll = {("likelihood", 0): 1.5, ("likelihood", 1): 1.7, ("sampled", 0): 1.25, ("sampled", 1): 1.46}
    folder = reported(
        {
            f"{name}{seed}": ({"seed": seed} | (SAMPLED if name == "sampled" else {}), {"valid/nll": value})
            for (name, seed), value in nll.items()
        }
    )
    assert results.main(["results", folder]) == 0
    text = capsys.readouterr().out
    assert "2026-01-02, commit abc, 8 x H, jax 0.9:" in text and "    python -m launch --config=x.py" in text
    assert "Scheduled sampling is best on valid NLL" in text and ".svg" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| | valid/nll | quality/jsd_4 | seconds |"
    # Student's quantile of one degree of freedom, 12.706, by half of the difference of two seeds.
    assert rows[2:] == [
        "| likelihood | 1.6 ± 1.3 | 0.250 | 12 |",
        "| scheduled sampling | **1.4 ± 1.3** | 0.250 | 12 |",
        "| *real data* |  | 0.125 | |",
    ]


def test_what_is_written_has_its_pictures_beside_it(reported, tmp_path):
    folder = reported({"a": ({}, {}), "b": (SAMPLED, {})})
    out = tmp_path / "shown" / "RESULTS.md"
    out.parent.mkdir()
    assert results.main(["results", folder, f"--out={out}"]) == 0
    picture = f"results/{tmp_path.name}-quality-bleu_4.svg"
    assert f"![quality/bleu_4 against quality/self_bleu_4]({picture})" in out.read_text()
    drawn = (out.parent / picture).read_text()
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"') and "--c0:" in drawn and "likelihood" in drawn


def test_published_numbers_stand_beside_ours(reported, monkeypatch, capsys):
    monkeypatch.setattr(results, "published_numbers", lambda name: {"valid/perplexity": "4.4 (A., 2020)"})
    assert results.main(["results", reported({"run": ({}, {})})]) == 0
    text = capsys.readouterr().out
    assert "valid/perplexity (here / published)" in text and "| 4.50 / 4.4 (A., 2020) |" in text


def test_a_folder_without_a_report_is_one_line(tmp_path, capsys):
    for left in ({}, {"final": {}}):  # of nothing, and of another version
        files.write_json(tmp_path / "report.json", left)
        assert results.main(["results", str(tmp_path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
