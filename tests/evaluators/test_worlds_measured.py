"""Evaluators of samples in known worlds: modes of a mixture, and the frontier of quality and diversity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import plugins, sharding, worlds
from gentrain.datasets.build import build
from gentrain.datasets.spec import Images
from gentrain.errors import ConfigError
from gentrain.models.base import Sampler
from tests.helpers import objective_of


def measured(name, config, model, params):
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, 1, jax.devices()[:1])
    data, split = build(config, None), "test"
    config.evaluate.split, data = split, data._replace(split={split: data.split(split)}.__getitem__)  # of no other name
    evaluator = plugins.load("evaluators", name).build(config, objective_of(model), data, mesh)
    return evaluator({"generator": params}, jax.random.key(0))


def drawn_from(world, which, sd_scale=1.0):
    """A sampler of the components in `which`, in equal shares."""
    means = jnp.asarray(world.means[list(which)], jnp.float32)
    sd = sd_scale * float(np.sqrt(world.covariances[0, 0, 0]))

    def one(key):
        mode, noise = jax.random.split(key)
        return means[jax.random.randint(mode, (), 0, len(means))] + sd * jax.random.normal(noise, (2,))

    return Sampler(lambda key: {}, lambda params, keys, context=None: jax.vmap(one)(keys))


@pytest.mark.parametrize(("name", "count"), [("ring", 8), ("grid", 25)])
def test_modes_are_counted_and_samples_judged_by_their_distance(config, name, count):
    config.data.name, config.evaluate.examples, config.data.world.held_out = f"world:{name}", 2500, 64
    world = worlds.of(config, "a test")
    values = measured("modes", config, drawn_from(world, range(count)), {})
    assert values["modes/captured"] == count
    assert values["modes/quality"] == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # of a Gaussian within 3 deviations
    assert values["modes/reverse_kl"] < 0.02
    sampled = -world.log_prob(world.sample(np.random.default_rng(0), 5000)).mean()
    assert values["modes/nll_oracle"] == pytest.approx(sampled, abs=0.1)
    assert isinstance(values["samples"], Images) and values["samples"].images.shape[0] == 1
    few = measured("modes", config, drawn_from(world, (2, 5)), {})
    assert few["modes/captured"] == 2 and few["modes/reverse_kl"] == pytest.approx(np.log(count / 2), abs=0.01)
    wide = measured("modes", config, drawn_from(world, range(count), 3.0), {})
    assert wide["modes/quality"] == pytest.approx(1 - np.exp(-0.5), abs=0.05)


def test_distances_to_a_mode_are_measured_along_its_own_axes(config):
    """Of N(0, S) with correlated coordinates the same share of samples lies within 3 deviations as of any."""
    config.data.name, config.evaluate.examples, config.data.world.held_out = "world:gaussian", 2500, 64
    factor = jnp.asarray(worlds.of(config, "a test").factors[0], jnp.float32)
    draw = jax.vmap(lambda key: factor @ jax.random.normal(key, (2,)))
    values = measured("modes", config, Sampler(lambda key: {}, lambda params, keys, context=None: draw(keys)), {})
    assert values["modes/captured"] == 1
    assert values["modes/quality"] == pytest.approx(1 - np.exp(-4.5), abs=0.01)


def test_modes_are_of_mixtures_in_the_plane(config):
    config.data.name = "world:bimodal"
    with pytest.raises(ConfigError, match="mixtures in the plane"):
        measured("modes", config, drawn_from(worlds.build("ring", config.data.world), (0,)), {})


def test_a_frontier_bends_at_the_data_and_temperature_sharpens(config):
    config.data.name, config.model.name, config.data.batch_size = "world:table", "tabular", 256
    config.data.world.held_out, config.evaluate.examples, config.data.world.concentration = 4096, 4096, 1.0
    world, spec = worlds.of(config, "a test"), build(config, None).spec
    model = plugins.load("models", "tabular").build(config.model, spec)
    p = world.probabilities()
    table = np.log(np.concatenate([law.reshape(-1, spec.vocab) for law in worlds.conditionals(p)]))
    values = measured("frontier", config, model, {"table": jnp.asarray(table, jnp.float32)})
    entropy = -float((p * np.log(p)).sum()) / p.ndim
    assert values["frontier/nll_oracle@1"] == pytest.approx(entropy, abs=0.03)
    assert values["frontier/nll_test@1"] == pytest.approx(entropy, abs=0.03)
    at = lambda name, temperatures: [values[f"frontier/{name}@{t:g}"] for t in temperatures]
    assert at("nll_oracle", (0.4, 0.7, 1.0, 1.5)) == sorted(at("nll_oracle", (0.4, 0.7, 1.0, 1.5)))
    assert values["frontier/nll_test@1"] == min(value for name, value in values.items() if "nll_test" in name)
    sharp = np.ones(())  # the law of samples at temperature 1/2
    for law in worlds.conditionals(p):
        sharp = sharp[..., None] * law**2 / (law**2).sum(-1, keepdims=True)
    assert values["frontier/nll_oracle@0.5"] == pytest.approx(-float((sharp * np.log(p)).sum()) / p.ndim, abs=0.03)
    assert values["frontier/nll_test@0.5"] == pytest.approx(-float((p * np.log(sharp)).sum()) / p.ndim, abs=0.05)
