"""Logits a few positions at a time: the same numbers, and never the logits of all of them in memory."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from gentrain import models, plugins, program, sharding
from tests.helpers import assert_trees_close, ragged_batch

GAMES = {
    "likelihood": {},
    "likelihood, smoothed": {"label_smoothing": 0.1, "z_loss": 0.01},
    "scheduled_sampling": {"mode": "sequential"},
    "scheduled_sampling, exact": {"mode": "exact"},
    "scheduled_sampling, windows": {"mode": "exact", "window": 3},
    "adversarial": {"known_density": True},
    "adversarial, no density": {},
    "cooperative": {},
}


def step_of(config, spec, name, model, chunk):
    """A compiled update in float32, its state and a ragged batch."""
    objective, options = name.partition(",")[0], GAMES[name]
    config.objective.update({"name": objective, **options})
    for section in (config.model, config.critic):
        section.name, section.logits_chunk, section.heads, section.kv_heads, section.width = model, chunk, 4, 2, 16
    config.optimizer.name, config.optimizer.clip_norm = "sgd", 0.0
    mesh = sharding.make_mesh({"replica": 1, "data": 1, "fsdp": 1, "tensor": 1}, 16, 1, jax.devices()[:1])
    built = program.build(config, spec, mesh)
    return built, jax.tree.map(jnp.asarray, ragged_batch(spec, 16, 3))


def updated(built, batch):
    return built.update(built.init(), batch)


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("model", ["lstm", "transformer"])
def test_a_step_by_chunks_is_the_step(config, spec, name, model):
    if "windows" in name and model == "lstm":
        config.scheduled_sampling.window = 0
    whole, chunks = (jax.device_get(updated(*step_of(config, spec, name, model, chunk))) for chunk in (0, 5))
    assert_trees_close(chunks[0].params, whole[0].params, atol=1e-6)
    assert_trees_close(chunks[1], whole[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 5, 12, 40])
def test_every_position_is_scored_once_whatever_the_chunk(config, spec, chunk):
    model = plugins.load("models", "lstm").build(config.model, spec)
    params, batch = model.init(jax.random.key(0)), ragged_batch(spec, 4, 0)
    inputs = feeding.shift_right(jnp.asarray(batch["tokens"]), spec.vocab, spec.end)
    score = lambda logits, tokens: (logits[..., 0], {"picked": jnp.take_along_axis(logits, tokens[..., None], -1)})
    whole = models.at_positions(model, params, score, inputs, batch["tokens"])
    found = models.at_positions(model._replace(chunk=chunk), params, score, inputs, batch["tokens"])
    assert_trees_close(found, whole, atol=1e-6)


def largest(jaxpr) -> int:
    """Elements of the largest array that a program makes, in its inner programs too."""
    sizes = [math.prod(getattr(v.aval, "shape", ())) for equation in jaxpr.eqns for v in equation.outvars]
    inner = [largest(part) for equation in jaxpr.eqns for part in jaxprs_in_params(equation.params)]
    return max(sizes + inner, default=0)


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("model", ["lstm", "transformer"])
def test_the_logits_of_all_positions_never_exist(config, spec, name, model):
    if "windows" in name and model == "lstm":
        config.scheduled_sampling.window = 0
    spec = spec._replace(vocab=1001, end=1000)  # outweighs all else
    every = 16 * spec.length * spec.vocab
    sizes = []
    for chunk in (0, 2):
        built, batch = step_of(config, spec, name, model, chunk)
        sizes.append(largest(jax.make_jaxpr(built.update)(built.state, batch).jaxpr))
    assert sizes[1] <= every // 2 < every <= sizes[0]  # next to windows, and to what the LSTM folds of its tokens
