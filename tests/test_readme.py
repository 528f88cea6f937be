"""What the documents say is true: their Python runs, their commands parse, their links lead somewhere."""

import re
import shlex

import numpy as np
import pytest

from gentrain import divergences
from launch import cli
from launch import list as listing
from tests.helpers import ROOT, StopAt

README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md"), ROOT / "CONTRIBUTING.md"]
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.S)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def arguments(command: str) -> list[str]:
    return shlex.split(command, comments=True)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "launch --config" in c])
def test_the_commands_of_the_readme_are_understood(command, tmp_path, monkeypatch):
    after = arguments(command)
    monkeypatch.chdir(ROOT)
    cli.parse(["launch", *after[after.index("launch") + 1 :]])


@pytest.mark.parametrize("command", [c for c in COMMANDS if "launch.list" in c])
def test_what_the_readme_lists_can_be_listed(command, capsys):
    assert listing.main(["launch.list", *arguments(command)[3:]]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_the_mathematics_of_the_readme():
    snippet = next(block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "worlds" in block)
    names: dict = {}
    exec(snippet, names)
    promised = float(re.search(r"# (0\.\d+): not at the data", snippet)[1])
    assert divergences.kl(names["p"].ravel(), names["q"].ravel()) == pytest.approx(promised, abs=5e-5)
    normalised = divergences.normalised_js(names["p"].ravel(), names["q"].ravel(), real_prior=0.0)
    assert normalised == pytest.approx(promised, abs=5e-5)


def test_the_notebook_lines_work(tmp_path, monkeypatch):
    """The README's five lines, on a run of two steps of the same config."""
    from gentrain import train

    config = cli.parse(["launch", f"--config={ROOT}/configs/surnames_likelihood.py", "--config.steps=2"]).config
    config.model.width, config.evaluate.evaluators, config.log.loggers = 8, ("samples",), ()
    monkeypatch.chdir(tmp_path)
    train.train(config, tmp_path / "runs/surnames_likelihood", StopAt())
    snippet = next(block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "gentrain.load" in block)
    names: dict = {}
    exec(snippet, names)
    run = names["run"]
    texts = run.sample(8, temperature=0.8)
    assert texts == run.sample(8, temperature=0.8) != run.sample(8, temperature=0.8, seed=1)
    assert len(texts) == 8 and all(isinstance(text, str) for text in texts)
    # log Q is that of the model: the probabilities of all documents of one letter or none add up to less than 1
    letters = [run.spec.decode(np.array([token])) for token in range(run.spec.vocab - 1)]
    total = np.exp(run.log_prob(["", *letters])).sum()
    assert 0 < total < 1
    assert run.log_prob(["a"])[0] == pytest.approx(run.log_prob(["a", "abcd"])[0], abs=1e-5)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    local = [link for link in links if not link.startswith("http")]
    assert all((document.parent / link).exists() for link in local), local


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
