"""A teacher that answers otherwise when it is asked otherwise is found before a run learns from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import plugins, sharding, train
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.models import tabular
from gentrain.models.base import before_logits
from gentrain.objectives import lessons, preflight
from tests.helpers import StopAt, ragged_batch

SPEC = TextSpec(vocab=7, length=12, end=6)


def teacher(name, mesh):
    """A model with parameters far from those of the start, and a batch of documents, two to a row."""
    config = base.get_config().model
    config.name, config.width, config.layers = name, 16, 2
    config.transformer.heads = config.transformer.kv_heads = config.gpt2.heads = 2
    model = plugins.load("models", name).build(config, SPEC)
    params = jax.tree.map(lambda x: 3 * x, sharding.compile_on(mesh, model.init)(jax.random.key(0)))
    return model, params, {name: jnp.asarray(array) for name, array in ragged_batch(SPEC, 16, 0).items()}


def mesh_of(devices):
    config = base.get_config().mesh
    config.fsdp = 2 if devices > 1 else 1
    return sharding.make_mesh(config, 16, devices=jax.devices()[:devices])


@pytest.mark.parametrize("name", ["transformer", "lstm", "gpt2"])
def test_sound_models_answer_the_same_whichever_way_they_are_asked(name, no_mesh):
    mesh = mesh_of(8)
    model, params, batch = teacher(name, mesh)
    mask, answers = preflight.ask(model, params, batch, mesh)
    assert list(answers) == ["side by side", "step by step", "on one device"] and mask.shape == (8, 12)
    apart = [np.abs(answer - answers["side by side"])[mask].max() for answer in answers.values()]
    assert max(apart) < 5e-4 and answers["side by side"][mask].std() > 0.1
    preflight.check(model, params, batch, mesh, 1e-3)


def test_a_step_that_is_not_the_model_is_named_with_how_far_it_is(no_mesh):
    mesh = mesh_of(1)
    model, params, batch = teacher("lstm", mesh)

    def step(params, cache, token):
        cache, logits = model.step(params, cache, token)
        return cache, logits.at[:, 3].add(0.5)

    text = r"differ by 0\.\d+ nats at token \d+ of row \d, side by side and step by step: expected at most .*=0.01"
    with pytest.raises(ConfigError, match=text) as found:
        preflight.check(model._replace(step=step), params, batch, mesh, 0.01)
    assert "\n" not in str(found.value)
    preflight.check(model._replace(step=step), params, batch, mesh, 0.6)
    none = model._replace(step=lambda params, cache, token: (cache, jnp.full((len(token), 7), jnp.nan)))
    with pytest.raises(ConfigError, match="nan nats"):
        preflight.check(none, params, batch, mesh, 0.6)


def test_a_mesh_that_changes_the_answer_is_named(no_mesh):
    model, params, batch = teacher("lstm", mesh_of(1))

    def apply(params, *arguments, **keywords):
        logits = model.apply(params, *arguments, **keywords)
        return logits if sharding.holds_all() else logits.at[:, :, 3].add(0.5)

    def step(params, cache, token):
        cache, logits = model.step(params, cache, token)
        return cache, logits if sharding.holds_all() else logits.at[:, 3].add(0.5)

    broken = model._replace(apply=apply, step=step, hidden=None, logits=lambda params, x: x)
    with pytest.raises(ConfigError, match="side by side and on one device"):
        preflight.check(broken, jax.device_put(params, sharding.replicated(mesh_of(8))), batch, mesh_of(8), 0.01)
    preflight.check(broken, params, batch, mesh_of(1), 0.01)


def test_what_was_written_down_of_another_teacher_is_named(no_mesh):
    mesh = mesh_of(1)
    model, params, batch = teacher("lstm", mesh)
    with sharding.inside(mesh):
        hidden = before_logits(model, params, model.inputs(batch["tokens"]))
    preflight.check(model, params, batch | {lessons.HIDDEN: hidden}, mesh, 1e-4)
    with pytest.raises(ConfigError, match="side by side and as it was written down"):
        preflight.check(model, params, batch | {lessons.HIDDEN: hidden[::-1]}, mesh, 0.01)


def test_a_run_is_refused_at_its_start_and_where_it_goes_on(tmp_path, monkeypatch, run_on_one_device):
    config = base.get_config()
    config.data.name, config.objective.name, config.log.loggers = "world:table", "distillation", ()
    config.model.name = config.teacher.name = "tabular"
    config.init_from = (("teacher", "world", "generator"),)
    config.evaluate.evaluators, config.steps = (), 4
    with pytest.raises(train.Stopped):
        train.train(config, tmp_path / "begun", StopAt(2))
    build = tabular.build

    def broken(*arguments):
        model = build(*arguments)

        def step(params, cache, token):
            cache, logits = model.step(params, cache, token)
            return cache, logits.at[:, 0].add(1.0)

        return model._replace(step=step)

    monkeypatch.setattr(tabular, "build", broken)
    for name in ("begun", "new"):
        with pytest.raises(ConfigError, match="the teacher's answers differ by"):
            train.train(config, tmp_path / name, StopAt())
    config.distillation.preflight = 0.0
    train.train(config, tmp_path / "new", StopAt())
