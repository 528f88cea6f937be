"""Each device draws its own rows of what evaluators sample, and no others."""

import jax
import pytest

from configs import base
from gentrain import data, decode, models, plugins, program, sharding

SAMPLERS = {"samples": "world:oracle", "frontier": "world:oracle", "exact": "world:oracle", "modes": "world:ring"}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("count", [64, 61])
def test_samples_are_drawn_where_their_rows_are(name, count, monkeypatch, tmp_path):
    config = base.get_config()
    config.data.name, config.data.batch_size = SAMPLERS[name], 64
    config.data.world.vocab, config.data.world.length, config.data.world.held_out = 7, 5, count
    config.evaluate.examples = config.sample.count = count
    config.model.width = 8
    if name == "modes":
        config.model.name = config.critic.name = "mlp"
        config.objective.name = "adversarial"
    mesh = sharding.make_mesh(config.mesh, 64)
    source = data.build(config, tmp_path)
    built, seen = program.build(config, source.spec, mesh), []

    def spy(model, params, keys, *arguments, **options):
        jax.debug.inspect_array_sharding(jax.random.key_data(keys), callback=lambda s: seen.append((s, keys.shape)))
        return sample(model, params, keys, *arguments, **options)

    sample, model = decode.sample, built.objective.model
    monkeypatch.setattr(decode, "sample", spy)
    if isinstance(model, models.Sampler):
        model = model._replace(sample=lambda *inputs: spy(None, *inputs))
        sample = lambda _, *inputs, own=built.objective.model: own.sample(*inputs)
    evaluator = plugins.load("evaluators", name).build(config, model, source, mesh)
    found = evaluator(built.init().params, jax.random.key(0))
    assert seen and all(where.shard_shape((*shape, 2))[0] == 8 for where, shape in seen)
    if name == "samples":
        assert len(found["samples"].texts) == count
