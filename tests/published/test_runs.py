"""Runs that start from a published model: their config is made to fit it, and what they end in goes out again."""

import json

import numpy as np
import pytest

import gentrain
from configs import base
from gentrain import train
from gentrain.errors import ConfigError
from gentrain.options import check, tree
from gentrain.options.fit import fit
from launch import cli, export
from tests.helpers import ROOT, StopAt
from tests.published.helpers import ROWS, TEXT, WIDTH, make_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("\n".join(f"{TEXT.split(chr(10))[0]} {n}" for n in range(60)))
    return make_folder(tmp_path / "model")


def arguments(folder, *more):
    data = f"--config.data.name=text:{folder.parent / 'a.txt'}"
    start = ["launch", f"--config={ROOT}/configs/shakespeare_likelihood.py", f"--config.init_from=hf:{folder}"]
    small = [
        "--config.data.batch_size=4",
        "--config.data.length=24",
        "--config.steps=2",
        "--config.log.loggers=()",
    ]
    return [*start, *small, data, "--config.data.text.unit=line", "--config.evaluate.evaluators=('likelihood',)", *more]


def parse(folder, *more):
    return cli.parse(arguments(folder, *more))


def test_a_config_takes_the_shape_and_the_tokenizer_of_its_model(folder):
    command = parse(folder, "--config.model.dropout=0.1")
    config = command.config
    assert config.model.name == "transformer" and config.model.width == WIDTH and config.model.dropout == 0.1
    assert config.model.transformer.norm_epsilon == 1e-5 and not config.model.transformer.sees_begin
    assert config.data.tokenizer == f"hf:{folder}"
    assert any("transformer of 3 layers and width 32" in note for note in command.notes)
    again = tree.flatten(config)
    fit(config)
    assert tree.flatten(config) == again


@pytest.mark.parametrize("key", ["model.width=64", "data.tokenizer='chars'", "model.name='lstm'"])
def test_a_flag_that_disagrees_with_the_model_is_refused(key, folder):
    with pytest.raises(ConfigError, match=rf"{key.partition('=')[0]}=.*: hf:.* has .*; leave it out"):
        parse(folder, f"--config.{key}")
    parse(folder, f"--config.model.width={WIDTH}")


def test_variants_start_from_models_of_their_own(folder):
    config = base.get_config()
    config.sweep = ({"init_from": f"hf:{folder}"}, {"model.width": 8})
    first, second = check.variants(config).values()
    assert first.model.width == WIDTH and second.model.width == 8 and second.data.tokenizer == "chars"
    config.init_from = (("critic", f"hf:{folder}", "generator"),)
    config.objective.name = "adversarial"
    fit(config)
    assert config.critic.width == WIDTH and config.critic.name == "transformer" and config.model.name == "lstm"


def test_a_run_starts_from_it_and_ends_in_one_that_says_the_same(folder, tmp_path, run_on_one_device):
    command, workdir = parse(folder), tmp_path / "run"
    train.train(command.config, workdir, StopAt())
    for file in folder.iterdir():
        file.unlink()  # from here on the run is a thing of its own
    (tmp_path / "a.txt").unlink()
    before = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    run = gentrain.load(workdir)
    assert run.step == 2 and run.spec.vocab == ROWS
    assert before[0]["valid/nll"] > before[-1]["valid/nll"]
    assert export.main([f"--workdir={workdir}", f"--out={tmp_path / 'out'}", "--step=best"]) == 0
    out = gentrain.load(f"hf:{tmp_path / 'out'}")
    texts = ["full of sound and fury", "🐙"]
    np.testing.assert_allclose(out.log_prob(texts), run.log_prob(texts), rtol=1e-5)
    said = (tmp_path / "out" / "README.md").read_text()
    assert "`likelihood`" in said and "valid/nll" in said and "## How it was made" in said
    assert export.main([f"--workdir={workdir}", f"--out={tmp_path / 'out'}"]) == 2  # it is not empty


def test_tokens_that_stand_for_something_else_are_refused(folder, tmp_path, run_on_one_device):
    config = parse(folder).config
    config.data.tokenizer = "chars"
    with pytest.raises(ConfigError, match=r"are not those of the data: set data.tokenizer='hf:"):
        train.train(config, tmp_path / "run", StopAt())
