"""How far a student is from its teacher: the estimates are those of enumeration, prompts and all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import plugins, sharding
from gentrain.datasets import build as building
from gentrain.errors import ConfigError
from gentrain.models.base import token_nlls
from tests.objectives.helpers import every_string, whole_batch

VOCAB, LENGTH = 3, 4
STRINGS = every_string(VOCAB, LENGTH)


@pytest.fixture
def config():
    config = base.get_config()
    config.data.name, config.data.world.vocab, config.data.world.length = "world:table", VOCAB, LENGTH
    config.objective.name, config.model.name, config.teacher.name = "distillation", "tabular", "tabular"
    config.data.batch_size, config.evaluate.examples = 128, 4096
    return config


def build(config, seed):
    """(the evaluator, the objective, random parameters of both players)."""
    data = building.build(config, None)
    objective = plugins.load("objectives", "distillation").build(config, data.spec)
    params, _ = objective.init(jax.random.key(0), whole_batch(STRINGS))
    random = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), params)
    evaluator = plugins.load("evaluators", "teacher").build(config, objective, data, sharding.one_device())
    return evaluator, objective, params


def measure(config, seed):
    """(what the evaluator measured, log P and log Q (81, 4) of the tokens of every string)."""
    evaluator, objective, params = build(config, seed)
    players = ((objective.teacher, "teacher"), (objective.model, "generator"))
    strings = jnp.asarray(STRINGS)
    nlls = (token_nlls(model, params[name], model.inputs(strings), strings) for model, name in players)
    log_laws = (-np.asarray(nll, np.float64) for nll in nlls)
    return evaluator(params, jax.random.key(seed)), *log_laws


@pytest.mark.parametrize("seed", [0, 1])
def test_divergences_entropy_and_exposure_are_those_of_enumeration(config, seed):
    found, log_p, log_q = measure(config, seed)
    p, q = np.exp(log_p.sum(1)), np.exp(log_q.sum(1))
    for name, law, ratios in (("forward_kl", p, log_p - log_q), ("reverse_kl", q, log_q - log_p)):
        exact, error = law @ ratios.sum(1), found[f"teacher/{name}_se"]
        spread = np.sqrt(law @ (ratios.sum(1) - exact) ** 2 / config.evaluate.examples)
        assert error == pytest.approx(spread, rel=0.2) and abs(found[f"teacher/{name}"] - exact) < 4 * error
    by_token = {"sample_nll": -q @ log_p, "own_nll": -p @ log_p, "entropy": -q @ log_q}
    for name, exact in by_token.items():
        assert found[f"teacher/{name}"] == pytest.approx(exact.mean(), rel=0.03)
    # KL[P||Q] of conditionals after each prefix is what the chain rule adds to the KL of prefixes.
    conditional = (log_p - log_q).reshape(*(VOCAB,) * LENGTH, LENGTH)
    steps = []
    for position in range(LENGTH):
        gain = conditional[..., position][(..., *(0,) * (LENGTH - 1 - position))]
        p_of = np.exp(log_p.reshape(*(VOCAB,) * LENGTH, LENGTH)[..., position])[(..., *(0,) * (LENGTH - 1 - position))]
        kl = (p_of * gain).sum(-1)  # by prefix
        weights = [law.reshape((VOCAB,) * LENGTH).sum(tuple(range(position, LENGTH))) for law in (q, p)]
        steps.append([np.sum(weight * kl) for weight in weights])
    own, taught = np.cumsum(steps, axis=0).T
    for count in (1, 2, 3, 4):
        exact = (own[count - 1] - taught[count - 1]) / taught[count - 1]
        name = "teacher/excess_error" + (f"@{count}" if count < LENGTH else "")
        assert found[name] == pytest.approx(exact, abs=0.05)
    assert found["teacher/excess_error@1"] == 0  # the first token has no prefix of its own


def test_the_teacher_itself_has_no_distance_from_itself(config):
    evaluator, _, params = build(config, 3)
    found = evaluator(params | {"generator": params["teacher"]}, jax.random.key(0))
    assert found["teacher/forward_kl"] == pytest.approx(0, abs=1e-6) == found["teacher/reverse_kl"]


def test_what_a_prompt_leaves_is_measured(config):
    config.evaluate.teacher.prompt = LENGTH - 1
    found, *_ = measure(config, 0)
    assert "teacher/excess_error@1" not in found and found["teacher/excess_error"] == pytest.approx(0, abs=0.2)
    config.evaluate.teacher.prompt = LENGTH
    with pytest.raises(ConfigError, match=r"evaluate.teacher.prompt=4: expected less than the 4 tokens of a row"):
        measure(config, 0)
