"""Each device draws its own rows of what evaluators sample, and no others."""

import jax
import numpy as np
import pytest

from configs import base
from gentrain import decode, plugins, sharding
from gentrain.datasets.build import build
from gentrain.models.base import Sampler
from tests.evaluators.test_generators import unigram
from tests.helpers import objective_of

SAMPLERS = {"samples": "world:oracle", "frontier": "world:oracle", "exact": "world:oracle", "modes": "world:ring"}
VOCAB = 7


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("count", [64, 61])
def test_samples_are_drawn_where_their_rows_are(name, count, monkeypatch):
    config = base.get_config()
    config.data.name, config.data.batch_size = SAMPLERS[name], 64
    config.data.world.vocab, config.data.world.length, config.data.world.held_out = VOCAB, 5, count
    config.evaluate.examples = config.sample.count = count
    mesh, data, seen, sample = sharding.make_mesh(config.mesh, 64), build(config, None), [], decode.sample

    def inspect(keys):
        jax.debug.inspect_array_sharding(jax.random.key_data(keys), callback=lambda s: seen.append((s, keys.shape)))

    def sample_sequences(model, params, keys, *arguments, **options):
        inspect(keys)
        return sample(model, params, keys, *arguments, **options)

    def sample_points(params, keys, context=None):
        inspect(keys)
        return jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)

    monkeypatch.setattr(decode, "sample", sample_sequences)
    model = Sampler(lambda key: {}, sample_points) if name == "modes" else unigram(np.full(VOCAB, 1 / VOCAB))
    evaluator = plugins.load("evaluators", name).build(config, objective_of(model), data, mesh)
    measured = evaluator({"generator": {}}, jax.random.key(0))
    assert seen and all(where.shard_shape((*shape, 2))[0] == 8 for where, shape in seen)
    if name == "samples":
        assert len(measured["samples"].texts) == count
