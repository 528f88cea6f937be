"""Each device draws its own rows of what evaluators sample, and no others."""

import jax
import pytest

from configs import base
from gentrain import decode, plugins, sharding
from gentrain.datasets.build import build
from gentrain.models.base import Sampler
from tests.helpers import objective_of

SAMPLERS = {"samples": "world:oracle", "frontier": "world:oracle", "exact": "world:oracle", "modes": "world:ring"}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("count", [64, 61])
def test_samples_are_drawn_where_their_rows_are(name, count, monkeypatch):
    config = base.get_config()
    config.data.name, config.data.batch_size = SAMPLERS[name], 64
    config.data.world.vocab, config.data.world.length, config.data.world.held_out = 7, 5, count
    config.evaluate.examples = config.sample.count = count
    config.model.name, config.model.width = "mlp" if name == "modes" else "lstm", 8
    mesh, data = sharding.make_mesh(config.mesh, 64), build(config, None)
    model, seen = plugins.load("models", config.model.name).build(config.model, data.spec), []
    params = jax.jit(model.init)(jax.random.key(0))
    sample = decode.sample

    def inspect(keys):
        jax.debug.inspect_array_sharding(jax.random.key_data(keys), callback=lambda s: seen.append((s, keys.shape)))

    def sample_sequences(model, params, keys, *arguments, **options):
        inspect(keys)
        return sample(model, params, keys, *arguments, **options)

    def sample_points(params, keys, context=None):
        inspect(keys)
        return model.sample(params, keys, context)

    monkeypatch.setattr(decode, "sample", sample_sequences)
    spied = model._replace(sample=sample_points) if isinstance(model, Sampler) else model
    evaluator = plugins.load("evaluators", name).build(config, objective_of(spied), data, mesh)
    found = evaluator({"generator": params}, jax.random.key(0))
    assert seen and all(where.shard_shape((*shape, 2))[0] == 8 for where, shape in seen)
    if name == "samples":
        assert len(found["samples"].texts) == count
