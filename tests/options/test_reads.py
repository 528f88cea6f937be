"""No option is dead: what is built and traced from configs reads every key that a config has."""

import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from configs import base
from gentrain import plugins, program, sharding, train
from gentrain.datasets import build as building
from gentrain.datasets import fetch
from gentrain.errors import DataError
from gentrain.options import check, tree
from gentrain.options.schema import Options
from launch import cli
from tests.helpers import ROOT, StopAt

TOKENS = {"data.length": 4, "model.width": 8, "evaluate.evaluators": ()}
SCHEDULED = {**TOKENS, "objective.name": "scheduled_sampling"}
GAME = {**TOKENS, "objective.name": "adversarial", "critic.width": 8}
DISTILLED = {**TOKENS, "objective.name": "distillation", "teacher.width": 8}
POINTS = {"objective.name": "adversarial", "critic.name": "mlp", "evaluate.evaluators": ("modes",)}
FALLING = {"scheduled_sampling.keep_schedule": "linear"}
IMAGES = {"data.name": "digits", "objective.name": "adversarial", "evaluate.evaluators": ()}
# Together they select every plug-in and every branch that has options of its own.
COVERING = [
    {**TOKENS, "evaluate.evaluators": ("likelihood", "baselines", "exposure", "samples")},
    {**TOKENS, "model.name": "transformer", "data.name": "cmudict", "data.tokenizer": "words", "data.conditional": True,
     "data.length": 30, "evaluate.evaluators": ("transcription",)},
    {**TOKENS, "evaluate.evaluators": ("text_quality",), "evaluate.text_quality.unit": "characters"},
    {**TOKENS, "evaluate.evaluators": ("frontier",)},
    {**IMAGES, "evaluate.evaluators": ("fidelity",)},
    {**SCHEDULED, **FALLING, "scheduled_sampling.feed": "gumbel_softmax"},
    {**SCHEDULED, "scheduled_sampling.mode": "exact", "scheduled_sampling.max_passes": 2},
    {**GAME, "adversarial.reward": "discounted", "adversarial.baseline": "moving_average"},
    {**GAME, "adversarial.reward": "rollouts", "adversarial.rollouts": 2, "critic.name": "transformer"},
    {**GAME, "adversarial.estimator": "gumbel_softmax", "optimizer.name": "sgd"},
    {**POINTS, "data.name": "world:ring", "model.name": "mlp", "adversarial.allocation": "counts"},
    {"data.name": "world:hmm", "objective.name": "divergence", "model.name": "tabular",
     "evaluate.evaluators": ("exact", "frontier")},
    *({"data.name": f"world:{world}", "evaluate.evaluators": ()} for world in ("table", "oracle")),
    {"data.name": "world:gaussian", "model.name": "gaussian", "evaluate.evaluators": ()},
    *({**IMAGES, "model.name": family, "critic.name": family} for family in ("dcgan", "resnet", "r3gan")),
    {"data.name": "captions:digits", "data.conditional": True, "data.length": 80, "evaluate.evaluators": ()},
    {**TOKENS, "objective.name": "cooperative", "mediator.name": "transformer", "mediator.width": 8},
    {**TOKENS, "objective.name": "cooperative"},
    {**TOKENS, "model.name": "gpt2"},
    {**GAME, "critic.name": "gpt2"},
    {**TOKENS, "objective.name": "cooperative", "mediator.name": "gpt2", "mediator.width": 8},
    {**DISTILLED, "distillation.prefixes": "mixed", "evaluate.evaluators": ("teacher",)},
    *(
        {**game, "data.name": "world:table", "data.length": 0, "model.name": "factorised_mixture",
         f"{other}.name": "factorised_mixture"}
        for game, other in ((GAME, "critic"), (DISTILLED, "teacher"),
                            ({**TOKENS, "objective.name": "cooperative"}, "mediator"))
    ),
    {**DISTILLED, "distillation.level": "sequence", "distillation.teacher_share": 0.2},
    *(
        {**game, "model.name": family, f"model.{family}.lora_rank": 2, f"{other}.name": family,
         f"{other}.{family}.lora_rank": 2, f"{other}.width": 8}
        for family in ("transformer", "gpt2")
        for game, other in ((GAME, "critic"), (DISTILLED, "teacher"),
                            ({**TOKENS, "objective.name": "cooperative"}, "mediator"))
    ),
]  # fmt: skip


class Reads:
    """Full names of the options that are read outside the options' own declarations and checks."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.keys: set[str] = set()
        self.sections: dict[int, tuple[ConfigDict, str]] = {}  # id -> the section, kept alive, and its full name
        self.typed: dict[int, tuple[Options, dict[str, str]]] = {}  # id -> typed options and their full names
        patch.setattr(ConfigDict, "__getattr__", self.reading(ConfigDict.__getattr__))
        patch.setattr(ConfigDict, "__getitem__", self.reading(ConfigDict.__getitem__))
        self.copy, self.read = ConfigDict.copy_and_resolve_references, Options.read.__func__
        patch.setattr(ConfigDict, "copy_and_resolve_references", lambda *arguments: self.copied(*arguments))
        patch.setattr(Options, "read", classmethod(self.read_typed))
        patch.setattr(Options, "__getattribute__", lambda options, name: self.get_typed(options, name))

    def root(self, config: ConfigDict) -> ConfigDict:
        self.sections[id(config)] = config, ""
        return config

    def copied(self, config: ConfigDict, *visited) -> ConfigDict:
        copy = self.copy(config, *visited)
        return copy if visited else self.root(copy)

    def counts(self, depth: int) -> bool:
        """Whether the code that reads, so many calls up, is none of the options' own."""
        caller = sys._getframe(depth).f_globals["__name__"]
        inside = caller.startswith(("gentrain.options", "ml_collections", "launch.cli", __name__))
        return not inside and not caller.endswith("_options")

    def reading(self, get):
        def wrapped(section, name):
            value = get(section, name)
            if id(section) in self.sections:
                place = self.sections[id(section)][1]
                key = f"{place}.{name}" if place else name
                if isinstance(value, ConfigDict):
                    self.sections[id(value)] = value, key
                elif self.counts(2):
                    self.keys.add(key)
            return value

        return wrapped

    def read_typed(self, cls, section, inner=None):
        options = self.read(cls, section, inner)
        if id(section) not in self.sections:
            return options
        places = [self.sections[id(part)][1] for part in (section, inner) if part is not None]
        names = {}
        for name in (name for name in object.__getattribute__(options, "__dataclass_fields__")):
            own = inner is not None and name in list(inner)
            names[name] = f"{places[-1] if own else places[0]}.{name}"
        self.typed[id(options)] = options, names
        return options

    def get_typed(self, options, name):
        if (found := self.typed.get(id(options))) and name in found[1] and self.counts(3):
            self.keys.add(found[1][name])
        return object.__getattribute__(options, name)


def shipped() -> Iterator[ConfigDict]:
    """One run of each objective in every variant of every shipped config."""
    for file in cli.config_files():
        from launch.list import constant

        for variant in constant(ROOT / file, "VARIANTS") or ("",):
            suffix = f":{variant}" if variant else ""
            config = cli.parse(["launch", f"--config={ROOT / file}{suffix}"]).config
            runs = check.variants(config) or {"": config}
            yield from {run.objective.name: run for run in runs.values()}.values()


def trace(config: ConfigDict, workdir: Path) -> None:
    """Builds all of a run and traces its update, on as many devices as there are."""
    config.mesh.update(replica=1, data=1, fsdp=1, tensor=1, rules=())
    config.mesh.fsdp, config.data.batch_size = 1, 8
    mesh = sharding.one_device()
    try:
        data = building.build(config, None)
        spec = data.spec
    except DataError:
        data, spec = None, building.expected_spec(config)
    built = program.build(config, spec, mesh)
    jax.eval_shape(built.update, built.state, built.batch)
    if data is not None:
        for name in config.evaluate.evaluators:
            plugins.load("evaluators", name).build(config, built.objective, data, mesh)


def trace_all(configs, reads: Reads, tmp_path: Path) -> None:
    for config in configs:
        trace(reads.root(config), tmp_path)


def with_overrides(overrides: dict) -> ConfigDict:
    config = base.get_config()
    config.update_from_flattened_dict(overrides)
    return config


def test_every_key_is_read_by_something_that_is_built_and_traced(monkeypatch, tmp_path):
    (tmp_path / "a.txt").write_text("one line\n" * 300)
    sources = ((f"text:{tmp_path}/a.txt", 1.0, 0), ("surnames", 1.0, 0))
    mixture = {**TOKENS, "data.name": "mixture", "data.mixture.sources": sources, "data.text.unit": "line"}
    reads = Reads(monkeypatch)
    trace_all(map(with_overrides, [*COVERING, mixture]), reads, tmp_path)
    (tmp_path / "hamlet.md").write_text("**HAMLET**  \nTo be.\n" * 300)
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "package", lambda pin: tmp_path)
        trace_all([with_overrides({**TOKENS, "data.name": "shakespeare"})], reads, tmp_path)
    small = with_overrides({**TOKENS, "evaluate.evaluators": ("samples",), "steps": 2, "log.every_steps": 1})
    train.train(reads.root(small), tmp_path / "run", StopAt())
    told = with_overrides({**DISTILLED, "data.name": "world:table", "model.name": "tabular",
                           "teacher.name": "tabular", "init_from": (("teacher", "world", "generator"),),
                           "steps": 1})  # fmt: skip
    train.train(reads.root(told), tmp_path / "told", StopAt())
    # What there is to run and to draw is read before anything is built; a TFDS set has to be prepared first.
    elsewhere = {"sweep", "report.figures", "data.tfds.text_key"}
    unread = sorted(set(tree.flatten(base.get_config())) - reads.keys - elsewhere)
    assert not unread, " ".join(unread)


@pytest.mark.slow
def test_every_shipped_config_is_built_and_traced(tmp_path):
    for config in shipped():
        trace(config, tmp_path)
