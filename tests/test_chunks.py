"""Logits a few positions at a time: the same numbers, and never the logits of all of them in memory."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from configs import base
from gentrain import heads, plugins, program, sharding
from gentrain.datasets.spec import TextSpec
from gentrain.models.base import at_positions
from gentrain.models.feeding import shift_right
from tests.helpers import assert_trees_close, ragged_batch

SPEC = TextSpec(7, 12, end=6)
OBJECTIVES = {
    "likelihood": {},
    "likelihood, smoothed": {"label_smoothing": 0.1, "z_loss": 0.01},
    "scheduled_sampling": {"mode": "sequential"},
    "scheduled_sampling, exact": {"mode": "exact"},
    "scheduled_sampling, windows": {"mode": "exact", "window": 3},
    "adversarial": {"known_density": True},
    "adversarial, no density": {},
    "cooperative": {},
}
CASES = [(name, model) for name in OBJECTIVES for model in ("lstm", "transformer")]
CASES.remove(("scheduled_sampling, windows", "lstm"))  # which has none
# These take long to compile. What games chunk shows with LSTMs, and what a Transformer chunks in the other objectives.
SLOW = [(name, "transformer") for name in OBJECTIVES if name.startswith(("adversarial", "cooperative"))]
# The smoothed likelihood reports the plain one too, and a Transformer's windows are harder than its single tokens.
SLOW += [("likelihood", "lstm"), ("likelihood", "transformer"), ("scheduled_sampling", "transformer")]


def step_of(name, model, chunk, spec=SPEC):
    """A compiled update in float32, its state and a ragged batch."""
    config = base.get_config()
    config.steps, config.data.batch_size, config.optimizer.learning_rate = 20, 16, 1e-2
    config.optimizer.name, config.optimizer.clip_norm = "sgd", 0.0
    config.objective.name = name.partition(",")[0]
    config[config.objective.name].update(OBJECTIVES[name])
    for section in (config.model, config.critic, config.mediator):
        section.name, section[model].logits_chunk, section.width = model, chunk, 16
        section.transformer.heads, section.transformer.kv_heads = 4, 2
    built = program.build(config, spec, sharding.one_device())
    return built, jax.tree.map(jnp.asarray, ragged_batch(spec, 16, 3))


@pytest.mark.parametrize(
    ("name", "model"), [pytest.param(*case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]
)
def test_a_step_by_chunks_is_the_step(name, model):
    results = []
    for chunk in (0, 5):
        built, batch = step_of(name, model, chunk)
        results.append(jax.device_get(built.update(built.init(), batch)))
    (state, metrics), (expected_state, expected_metrics) = results[1], results[0]
    assert_trees_close(state.params, expected_state.params, atol=1e-6)
    assert_trees_close(metrics, expected_metrics, rtol=1e-4, atol=1e-4)


def test_every_position_is_scored_once_whatever_the_chunk():
    config = base.get_config()
    config.model.width = 16
    model = plugins.load("models", "lstm").build(config.model, SPEC)
    params, batch = jax.jit(model.init)(jax.random.key(0)), ragged_batch(SPEC, 4, 0)
    inputs, tokens = shift_right(jnp.asarray(batch["tokens"]), SPEC.vocab, SPEC.end), jnp.asarray(batch["tokens"])

    def score(logits, tokens):
        return logits[..., 0], {"picked": jnp.take_along_axis(logits, tokens[..., None], -1)}

    @jax.jit
    def scores(params):
        chunked = [model._replace(chunk=chunk) for chunk in (0, 1, 5, 12, 40)]
        return [at_positions(each, params, score, inputs, tokens) for each in chunked]

    whole, *by_chunks = scores(params)
    for found in by_chunks:
        assert_trees_close(found, whole, atol=1e-6)


def largest(jaxpr) -> int:
    """Elements of the largest array that a program makes, in its inner programs too."""
    sizes = [math.prod(getattr(v.aval, "shape", ())) for equation in jaxpr.eqns for v in equation.outvars]
    inner = [largest(part) for equation in jaxpr.eqns for part in jaxprs_in_params(equation.params)]
    return max(sizes + inner, default=0)


@pytest.mark.parametrize(("name", "model"), CASES)
def test_the_logits_of_all_positions_never_exist(name, model, monkeypatch):
    monkeypatch.setattr(heads, "PIECE", 1)
    spec = dataclasses.replace(SPEC, vocab=1001, end=1000)  # outweighs all else
    every = 16 * spec.length * spec.vocab
    sizes = []
    for chunk in (0, 2):
        built, batch = step_of(name, model, chunk, spec)
        sizes.append(largest(jax.make_jaxpr(built.update)(built.state, batch).jaxpr))
    assert sizes[1] <= every // 2 < every <= sizes[0]  # next to windows, and to what the LSTM folds of its tokens
