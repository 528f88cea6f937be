"""Natural mistakes on the command line: one clear line, the right exit code, before JAX is there."""

import random
import subprocess
import sys
import time

import pytest

from configs import base
from gentrain.options import tree
from launch import __main__ as launcher
from launch.cli import parse
from tests.helpers import ROOT, environment, launch

QUICKSTART = "--config=configs/quickstart.py"
SURNAMES = "--config=configs/surnames_likelihood.py"
RING = "--config=configs/ring_adversarial.py"
DIGITS = "--config=configs/digits_adversarial.py"
ORACLE = "--config=configs/oracle_benchmark.py"
TRANSFORMER = (SURNAMES, "--config.model.name=transformer", "--config.model.width=48")

MISTAKES = [
    # a key or a flag that there is not
    ((SURNAMES, "--config.optimizer.learning_rat=1"), ["learning_rat", "optimizer.learning_rate"]),
    ((SURNAMES, "--config.optimiser.learning_rate=1"), ["optimiser", "optimizer.learning_rate"]),
    ((SURNAMES, "--config.width=64"), ["width", "did you mean", "model.width"]),
    ((SURNAMES, "--config.model=lstm"), ["no key 'model'", "did you mean"]),
    ((SURNAMES, "--config.objective.keep_true=0.5"), ["keep_true", "scheduled_sampling.keep_true"]),
    ((SURNAMES, "--steps=10"), ["--steps", "--config.steps"]),
    ((SURNAMES, "--model.width=64"), ["--model.width", "--config.model.width"]),
    ((SURNAMES, "--learning_rate=1"), ["--config.optimizer.learning_rate"]),
    ((SURNAMES, "--workdr=/x"), ["--workdr", "--workdir"]),
    ((SURNAMES, "--nonsense=1"), ["nonsense", "--config.KEY=VALUE"]),
    ((SURNAMES, "--mode=trian"), ["trian", "train"]),
    ((SURNAMES, "stray"), ["stray", "options start with --"]),
    ((SURNAMES, "--step=best"), ["--step is read with --mode=evaluate", "--rewind=STEP"]),
    ((SURNAMES, "--mode=evaluate", "--step=worst"), ["--step=worst", "best, last, or the step"]),
    ((SURNAMES, "--split=test"), ["--split is read with --mode=evaluate", "--config.evaluate.split"]),
    ((SURNAMES, "--config.evaluate.patience=2"), ["evaluate.patience=2", "evaluate.keep_best"]),
    ((SURNAMES, "--config.log.loggers=('tensorbored',)"), ["log.loggers='tensorbored'", "tensorboard, wandb"]),
    ((), ["configs/quickstart.py"]),
    # a config file or a variant that there is not
    (("--config=configs/quikstart.py",), ["configs/quikstart.py", "configs/quickstart.py"]),
    (("--config=quickstart.py",), ["quickstart.py", "configs/quickstart.py"]),
    (("--config=configs/nowhere_at_all.py",), ["configs/nowhere_at_all.py"]),
    ((f"{DIGITS}:resnett",), ["resnett", "dcgan, resnet, r3gan, conditional"]),
    (("--config=configs/mnist5k_adversarial.py:condtional",), ["condtional", "conditional"]),
    ((f"{ORACLE}:ful",), ["ful", "full"]),
    (("--config=configs/scale.py:2b",), ["2b", "1b_adversarial"]),
    ((f"{QUICKSTART}:foo",), ["foo", "no variants"]),
    # a value of another type, or out of its range
    ((SURNAMES, "--config.steps=many"), ["steps", "many"]),
    ((SURNAMES, "--config.steps=0"), ["steps=0", "above 0"]),
    ((SURNAMES, "--config.steps=1.5"), ["steps", "1.5"]),
    ((SURNAMES, "--config.seed=9223372036854775807"), ["seed", "at most 2147483647"]),
    ((SURNAMES, "--config.optimizer.learning_rate=-1"), ["learning_rate=-1", "above 0"]),
    ((SURNAMES, "--config.optimizer.learning_rate=nan"), ["learning_rate", "finite"]),
    ((SURNAMES, "--config.optimizer.learning_rate=inf"), ["learning_rate", "finite"]),
    ((SURNAMES, "--config.optimizer.learning_rate=1e-3,1e-2"), ["1e-3,1e-2", "--config.sweep="]),
    ((SURNAMES, "--config.optimizer.warmup_steps=-1"), ["warmup_steps=-1", "0 or more"]),
    ((SURNAMES, "--config.training.ema_decay=1"), ["ema_decay=1", "below 1"]),
    ((SURNAMES, "--config.model.dropout=1.5"), ["dropout=1.5", "below 1"]),
    ((SURNAMES, "--config.data.batch_size=0"), ["batch_size=0", "above 0"]),
    ((SURNAMES, "--config.sample.top_p=0"), ["top_p=0", "above 0"]),
    ((SURNAMES, "--config.sample.temperature=1e-9"), ["temperature", "0.001"]),
    ((SURNAMES, "--config.log.profile=('a','b')"), ["log.profile", "(10, 13)"]),
    ((RING, "--config.sweep=()", "--config.objective.real_prior=2"), ["real_prior=2", "at most 1"]),
    ((RING, "--config.sweep=()", "--config.objective.real_prior=0"), ["real_prior=0", "between 0 and 1"]),
    # a name that there is not
    ((SURNAMES, "--config.optimizer.name=adamm"), ["adamm", "adamw"]),
    ((SURNAMES, "--config.optimizer.name=Adam"), ["Adam", "did you mean 'adam'"]),
    ((SURNAMES, "--config.optimizer.schedule=triangle"), ["triangle", "cosine"]),
    ((SURNAMES, "--config.model.name=lstn"), ["model.name='lstn'", "lstm"]),
    ((SURNAMES, "--config.objective.name=gan"), ["objective.name='gan'", "adversarial"]),
    ((SURNAMES, "--config.evaluate.evaluators=('bleu',)"), ["bleu", "likelihood"]),
    ((QUICKSTART, "--config.report.figures=('pie',)"), ["pie", "js_dial"]),
    ((SURNAMES, "--config.data.name=names"), ["names", "surnames"]),
    ((SURNAMES, "--config.data.name=poems.txt"), ["poems.txt", "'text:poems.txt'"]),
    ((SURNAMES, "--config.data.name=text"), ["data.name='text'", "text:PATH"]),
    ((SURNAMES, "--config.data.name=surnames:x"), ["surnames:x", "no argument"]),
    ((RING, "--config.data.name=world:donut"), ["world:donut", "world:ring"]),
    ((SURNAMES, "--config.data.layout=tight"), ["tight", "pad, pack"]),
    # networks
    ((RING, "--config.critic.width=0"), ["critic.width=0", "above 0"]),
    ((QUICKSTART, "--config.critic.name=transformer", "--config.critic.transformer.heads=0"), ["heads=0", "above 0"]),
    ((QUICKSTART, "--config.critic.name=transformer", "--config.critic.transformer.attention=foo"), ["foo", "xla"]),
    ((RING, "--config.critic.param_dtype=float7"), ["critic.param_dtype='float7'", "float32"]),
    (
        (QUICKSTART, "--config.critic.name=transformer", "--config.critic.transformer.remat=foo"),
        ["critic.transformer.remat"],
    ),
    ((DIGITS, "--config.critic.name=lstm"), ["critic.name='lstm'", "dcgan"]),
    ((DIGITS, "--config.model.name=lstm"), ["latent", "model.name='dcgan'"]),
    ((SURNAMES, "--config.model.name=dcgan"), ["model.name='dcgan'", "lstm"]),
    ((SURNAMES, "--config.data.name=world:ring", "--config.data.length=64"), ["model.name='lstm'", "points"]),
    ((SURNAMES, "--config.critic.name=gaussian", "--config.objective.name=adversarial"), ["critic.name='gaussian'"]),
    ((*TRANSFORMER, "--config.model.transformer.heads=5"), ["heads=5", "divisor of model.width=48"]),
    ((*TRANSFORMER, "--config.model.transformer.heads=16"), ["heads=16", "even"]),
    ((*TRANSFORMER, "--config.model.transformer.kv_heads=3"), ["kv_heads=3", "divisor of model.transformer.heads=4"]),
    ((*TRANSFORMER, "--config.model.transformer.attention=cudnn"), ["cudnn", "compute_dtype='float32'"]),
    # options that nothing reads
    ((RING, "--config.scheduled_sampling.keep_true=0.3"), ["keep_true=0.3", "objective.name='scheduled_sampling'"]),
    ((SURNAMES, "--config.critic.width=256"), ["critic.width=256", "objective.name='adversarial'"]),
    ((SURNAMES, "--config.model.transformer.heads=8"), ["heads=8", "model.name='transformer'"]),
    ((SURNAMES, "--config.objective.real_prior=0.3"), ["real_prior=0.3", "adversarial"]),
    ((SURNAMES, "--config.adversarial.augment=('flipp',)"), ["augment", "objective.name='adversarial'"]),
    ((RING, "--config.likelihood.z_loss=1"), ["z_loss", "objective.name='likelihood'"]),
    (("--config=configs/shakespeare_cooperative.py", "--config.adversarial.spectral_norm=True"), ["spectral_norm"]),
    (("--config=configs/shakespeare_cooperative.py", "--config.critic.width=64"), ["critic.width", "adversarial"]),
    ((SURNAMES, "--config.scheduled_sampling.mode=passes"), ["mode", "objective.name='scheduled_sampling'"]),
    ((RING, "--config.adversarial.discount=0.5"), ["discount=0.5", "adversarial.reward='discounted'"]),
    ((SURNAMES, "--config.data.world.vocab=3"), ["data.world.vocab=3", "data.name='world'"]),
    ((SURNAMES, "--config.data.levels=4"), ["data.levels=4", "digits"]),
    ((SURNAMES, "--config.evaluate.transcription.beam=4"), ["beam=4", "evaluate.evaluators='transcription'"]),
    ((RING, "--config.optimizer.weight_decay=0.1"), ["weight_decay=0.1", "adamw"]),
    ((SURNAMES, "--config.optimizer.momentum=0.9"), ["momentum=0.9", "sgd"]),
    ((SURNAMES, "--config.optimizer.name=sgd", "--config.optimizer.weight_decay=0.1"), ["weight_decay=0.1", "lion"]),
    ((SURNAMES, "--config.optimizer.name=adafactor", "--config.optimizer.b1=0.5"), ["b1=0.5", "adamw"]),
    ((SURNAMES, "--config.optimizer.name=lion", "--config.optimizer.eps=1e-6"), ["eps=1e-06", "adafactor"]),
    # flags that a sweep overrules, and sweeps
    ((QUICKSTART, "--config.objective.real_prior=0.3"), ["real_prior", "real_prior=0.1"]),
    ((ORACLE, "--config.steps=7"), ["steps", "steps=3000"]),
    ((SURNAMES, '--config.sweep=({"seed":1})'), ["sweep", "dict"]),
    ((SURNAMES, "--config.sweep=(1,2)"), ["sweep", "dict"]),
    ((SURNAMES, "--config.sweep=({},)"), ["sweep", "apart"]),
    ((SURNAMES, "--config.sweep=({'seed':1},{})"), ["sweep", "apart"]),
    ((SURNAMES, "--config.sweep=({'seed':1},{'model.name':'lstn'})"), ["model.name='lstn'", "lstm"]),
    ((SURNAMES, "--config.sweep=({'sed':1},)"), ["sed", "seed"]),
    ((SURNAMES, "--config.sweep=({'seed':1},{'seed':1})"), ["two variants", "seed=1"]),
    # combinations
    ((SURNAMES, "--config.training.microbatches=3"), ["microbatches=3", "divisor"]),
    ((SURNAMES, "--config.mesh.data=3"), ["batch_size=128", "multiple of 3"]),
    ((SURNAMES, "--config.mesh.data=64", "--config.training.microbatches=4"), ["64 devices x 4 microbatches"]),
    ((SURNAMES, "--config.mesh.fsdp=0"), ["mesh", "positive"]),
    ((SURNAMES, "--config.mesh.fsdp=-1"), ["mesh", "at most one -1"]),
    ((SURNAMES, "--config.mesh.rules=(('(',('fsdp',)),)"), ["mesh.rules", "regular expression"]),
    ((SURNAMES, "--config.data.name=mixture"), ["data.mixture.sources"]),
    ((SURNAMES, "--config.data.name=text:x.txt", "--config.data.valid_fraction=0.99"), ["valid_fraction", "below 1"]),
    ((SURNAMES, "--config.evaluate.evaluators=('exact',)"), ["data.name='surnames'", "world"]),
    ((SURNAMES, "--config.objective.name=divergence"), ["data.name='surnames'", "world"]),
    ((SURNAMES, "--config.evaluate.evaluators=('transcription',)"), ["data.conditional"]),
    (("--config=configs/theory_scheduled_sampling.py", "--config.scheduled_sampling.feed=soft_argmax"), ["expert"]),
    (("--config=configs/surnames_scheduled_sampling.py", "--config.scheduled_sampling.label=expert"), ["expert"]),
    ((QUICKSTART, "--config.adversarial.generator_loss=hinge"), ["generator_loss='hinge'", "js"]),
    ((QUICKSTART, "--config.adversarial.r1=0.1"), ["r1", "no slope"]),
    ((QUICKSTART, "--config.critic.name=mlp"), ["reward='dense'", "mlp"]),
]


@pytest.fixture(autouse=True)
def no_run(monkeypatch):
    """A mistake that nothing refuses fails at once, where the launcher would train."""
    monkeypatch.setattr(launcher, "run", lambda command, stop: pytest.fail("nothing was refused"))


def mistake(capsys, *arguments) -> str:
    assert launcher.main(["launch", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("ConfigError: ")
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err and not captured.out
    return captured.err


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda value: " ".join(value)[:80])
def test_a_mistake_is_named_in_one_line(capsys, arguments, words):
    error = mistake(capsys, *arguments)
    assert all(word in error for word in words), error


def test_a_flag_that_some_variants_set_anew_is_read_by_the_others():
    sweep = "--config.sweep=({'model.width': 8}, {'seed': 1})"
    assert parse(["launch", SURNAMES, sweep, "--config.model.width=16"]).config.model.width == 16


def test_a_fault_in_a_config_file_is_placed(capsys, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "bad.py").write_text("def get_config():\n    return 1 / 0\n")
    assert "bad.py:2: division by zero" in mistake(capsys, f"--config={tmp_path}/configs/bad.py")


def test_random_typos_of_real_keys_are_all_rejected(capsys):
    generator = random.Random(0)
    flat = tree.flatten(base.get_config())
    for key in generator.sample(sorted(flat), 25):
        place = generator.randrange(len(key) - 1)
        typo = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
        if typo not in flat:
            mistake(capsys, QUICKSTART, f"--config.{typo}={flat[key]}")


def test_a_mistake_costs_less_than_two_seconds_and_no_jax():
    start = time.monotonic()
    process = launch(QUICKSTART, "--config.model.widht=3")
    assert process.returncode == 2 and time.monotonic() - start < 2 and "width" in process.stderr
    code = f"import sys, launch.__main__ as l; l.main(['launch', '{RING}', '--config.critic.width=0'])"
    code += "; sys.exit('jax' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True).returncode == 0


def test_a_short_run_shortens_its_warmup_and_says_so():
    command = parse(["launch", SURNAMES, "--config.steps=10"])
    assert command.config.optimizer.warmup_steps == 1
    assert command.notes == ["optimizer.warmup_steps: 100 -> 1, since steps=10"]
    # A run that ends with its warm-up would never be at its peak.
    assert parse(["launch", SURNAMES, "--config.steps=100"]).config.optimizer.warmup_steps == 10
    assert parse(["launch", SURNAMES, "--config.steps=101"]).notes == parse(["launch", SURNAMES]).notes == []


def test_the_default_workdir_is_named_after_the_config_and_its_variant():
    assert parse(["launch", QUICKSTART]).workdir == ROOT / "runs" / "quickstart"
    assert parse(["launch", f"{RING}:grid"]).workdir == ROOT / "runs" / "ring_adversarial-grid"
    assert parse(["launch", QUICKSTART, "--workdir=/x/y"]).workdir.as_posix() == "/x/y"


@pytest.mark.parametrize("module", ["launch", "launch.list", "launch.prepare", "launch.benchmark", "launch.aot"])
def test_help_works_everywhere(module):
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"python -m {module}" in done.stdout and not done.stderr
