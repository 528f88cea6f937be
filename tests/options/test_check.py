"""Config mistakes: one clear line, exit code 2, before JAX is there."""

import random
import subprocess
import sys
import time

import pytest

from configs import base
from gentrain.options import check as rules
from gentrain.errors import ConfigError
from launch.__main__ import main, parse
from tests.helpers import ROOT, environment, launch

QUICK = "--config=configs/quickstart.py"


def mistake(capsys, *arguments) -> str:
    assert main(["launch", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.optimizer.learning_rat=1", ["learning_rat", "learning_rate"]),
        ("--config.optimiser.learning_rate=1", ["optimiser", "optimizer"]),
        ("--config.steps=many", ["steps", "many"]),
        ("--config.steps=0", ["steps=0", "above 0"]),
        ("--config.steps=1.5", ["steps", "1.5"]),
        ("--config.seed=9223372036854775807", ["seed"]),
        ("--config.optimizer.learning_rate=-1", ["learning_rate=-1", "above 0"]),
        ("--config.optimizer.learning_rate=nan", ["learning_rate", "finite"]),
        ("--config.optimizer.learning_rate=inf", ["learning_rate", "finite"]),
        ("--config.optimizer.name=adamm", ["adamm", "adamw"]),
        ("--config.optimizer.schedule=triangle", ["triangle", "cosine"]),
        ("--config.model.name=lstn", ["lstn", "lstm"]),
        ("--config.model.dropout=1.5", ["dropout", "below 1"]),
        ("--config.data.batch_size=0", ["batch_size", "above 0"]),
        ("--config.training.microbatches=3", ["microbatches=3", "divisor"]),
        ("--config.mesh.data=3", ["batch_size=128", "multiple of 3"]),
        ("--config.mesh.fsdp=0", ["mesh", "positive"]),
        ("--config.mesh.fsdp=-1", ["mesh", "at most one -1"]),
        ("--config.optimizer.warmup_steps=1000", ["warmup_steps=1000", "fewer than steps=1000"]),
        ("--config.optimizer.warmup_steps=-1", ["warmup_steps=-1", "0 or more"]),
        ("--config.data.layout=tight", ["tight", "pad, pack"]),
        ("--config.evaluate.evaluators=('bleu',)", ["bleu", "likelihood"]),
        ("--config.sample.top_p=0", ["top_p"]),
        ("--config.data.valid_fraction=0.99", ["valid_fraction"]),
        ("--config.data.mixture.sources=(('surnames',1.0,0),)", ["sources", "mixture"]),
        ("--nonsense=1", ["nonsense"]),
        ("stray", ["stray"]),
    ],
)
def test_mistakes_are_named_in_one_line(capsys, argument, words):
    error = mistake(capsys, QUICK, argument)
    assert all(word in error for word in words), error


def test_transformer_shapes_that_cannot_be(capsys):
    model = ["--config.model.name=transformer", "--config.model.width=48"]
    assert "divisor of model.width=48" in mistake(capsys, QUICK, *model, "--config.model.transformer.heads=5")
    assert "even" in mistake(capsys, QUICK, *model, "--config.model.transformer.heads=16")
    assert "divisor of model.transformer.heads=4" in mistake(capsys, QUICK, *model, "--config.model.transformer.kv_heads=3")


def test_microbatches_count_when_a_batch_is_divided(capsys):
    error = mistake(capsys, QUICK, "--config.mesh.data=64", "--config.training.microbatches=4")
    assert "batch_size=128" in error and "64 devices x 4 microbatches" in error


def test_no_config_or_a_missing_one(capsys):
    assert "configs/quickstart.py" in mistake(capsys)
    assert "configs/nowhere.py" in mistake(capsys, "--config=configs/nowhere.py")


def test_a_fault_in_a_config_file_is_placed(capsys, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "bad.py").write_text("def get_config():\n    return 1 / 0\n")
    assert "bad.py:2: division by zero" in mistake(capsys, f"--config={tmp_path}/configs/bad.py")


def test_random_typos_of_real_keys_are_all_rejected(capsys):
    generator = random.Random(0)
    flat = rules.flatten(base.get_config())
    for key in generator.sample(sorted(flat), 25):
        place = generator.randrange(len(key) - 1)
        typo = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
        if typo not in flat:
            mistake(capsys, QUICK, f"--config.{typo}={flat[key]}")


def test_a_mistake_costs_less_than_two_seconds_and_no_jax():
    start = time.monotonic()
    process = launch(QUICK, "--config.model.widht=3")
    assert process.returncode == 2 and time.monotonic() - start < 2 and "width" in process.stderr
    code = (
        f"import sys, launch.__main__ as l; l.main(['launch', '{QUICK}', '--nope=1']); sys.exit('jax' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True).returncode == 0
    )


def test_the_default_workdir_is_named_after_the_config_and_its_variant():
    assert parse(["launch", "--config=configs/quickstart.py"])[2] == ROOT / "runs" / "quickstart"
    assert parse(["launch", "--config=configs/quickstart.py:small"])[2] == ROOT / "runs" / "quickstart-small"
    assert parse(["launch", "--config=configs/quickstart.py", "--workdir=/x/y"])[2].as_posix() == "/x/y"


def test_a_workdir_of_another_experiment_is_refused_and_soft_changes_are_told(tmp_path):
    config = base.get_config()
    assert rules.check_same_run(config, tmp_path / "config.json") == []
    import json

    (tmp_path / "config.json").write_text(json.dumps(rules.resolved(config)))
    assert rules.check_same_run(config, tmp_path / "config.json") == []
    config.steps, config.optimizer.learning_rate, config.data.prefetch = 5, 0.5, 3
    assert rules.check_same_run(config, tmp_path / "config.json") == [
        "data.prefetch: 2 -> 3",
        "optimizer.learning_rate: 0.001 -> 0.5",
        "steps: 1000 -> 5",
    ]
    config.model.width = 99
    with pytest.raises(ConfigError, match="width: 128 -> 99"):
        rules.check_same_run(config, tmp_path / "config.json")
