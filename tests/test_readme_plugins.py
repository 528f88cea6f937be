"""The examples of gentrain/README.md: a complete plug-in of each kind, dropped into a folder and run."""

import json
import re

import pytest

from tests.helpers import ROOT, launch

EXAMPLES = re.findall(r"`([\w/]+\.py)`\n\n```python\n(.*?)```", (ROOT / "gentrain/README.md").read_text(), re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("plugins")
    for name, code in EXAMPLES:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(code)
    return root


def test_there_is_one_of_each_kind():
    rooms = {name.partition("/")[0] for name, _ in EXAMPLES}
    assert rooms == {"objectives", "models", "sources", "evaluators", "figures", "my_config.py"}


def test_they_run_and_their_options_are_theirs(folder):
    run = {"GENTRAIN_PLUGINS": str(folder), "MPLBACKEND": "agg"}
    command = [f"--config={folder}/my_config.py", f"--workdir={folder}/run"]
    done = launch(*command, **run)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "run/report.json").read_text())
    assert sorted(report["runs"]) == ["weight=0", "weight=0.5"]
    assert report["figures"]["bars"].keys() == report["runs"].keys()
    assert report["metrics"]["letters/share"]["ranking"] and (folder / "run/plots/bars.png").exists()
    # the penalty was read: it makes the model less sure
    entropies = [report["runs"][name]["final"]["generator/entropy"] for name in ("weight=0", "weight=0.5")]
    assert entropies[0] < entropies[1]
    # and is checked like any other option
    for flag, word in (
        ("--config.confident.weigth=1", "confident.weight"),
        ("--config.evaluate.letters.wanted=xyz", "evaluate.evaluators='letters'"),
        ("--config.model.bigram.spread=-1", "model.bigram.spread=-1"),
        ("--config.model.width=64", "width"),
    ):
        config = f"--config={ROOT}/configs/surnames_likelihood.py" if "letters" in flag else command[0]
        done = launch(config, flag, **run)
        assert done.returncode == 2 and word in done.stderr and done.stderr.count("\n") == 1, done.stderr
