"""The exact evaluator against numpy on models that are tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import divergences, plugins, sharding, worlds
from gentrain.datasets.build import build
from gentrain.errors import ConfigError
from gentrain.evaluators import exact
from gentrain.objectives.base import Objective, Optimum
from gentrain.worlds.support import Support


def objective_in_world(config) -> Objective:
    """The config's objective for the data of its world."""
    return plugins.load("objectives", config.objective.name).build(config, build(config, None).spec)


def measure(config, objective, params):
    mesh, data, name = sharding.make_mesh(config.mesh, config.data.batch_size), build(config, None), "test"
    config.evaluate.split, data = (
        name,
        data._replace(split={name: data.split(name)}.__getitem__),
    )  # and of no other name
    return exact.build(config, objective, data, mesh)({"generator": params}, jax.random.key(0))


def test_the_excess_is_above_the_least_of_the_family_at_its_own_prior():
    """JS_pi[P||Q] / (pi (1 - pi)) less that of Q*, which is not symmetric; and the largest |Q(x) - Q*(x)|."""
    p, q, best = np.random.default_rng(0).dirichlet(np.ones(4), 3)
    values = exact.from_optimum(Optimum("minimiser", best.reshape(2, 2), 0.1), Support(None, np.log(p), 0.0), np.log(q))
    excess = divergences.normalised_js(p, q, 0.1) - divergences.normalised_js(p, best, 0.1)
    assert values == pytest.approx({"minimiser_error": np.abs(q - best).max(), "excess_njs": excess})


@pytest.mark.parametrize("seed", [0, 1])
def test_everything_about_a_random_table(config, seed):
    config.data.name, config.data.world.seed, config.data.world.held_out = "world:table", seed, 4000
    config.model.name, config.objective.name, config.scheduled_sampling.keep_true = "tabular", "scheduled_sampling", 0.3
    p = worlds.build("table", config.data.world).probabilities()
    q = np.random.default_rng(seed + 10).dirichlet(np.ones(81)).reshape((3,) * 4)
    logits = np.concatenate([np.log(law.reshape(-1, 3)) for law in worlds.conditionals(q)])
    measured = measure(config, objective_in_world(config), {"table": jnp.asarray(logits, jnp.float32)})
    expected = {
        "forward_kl": (p * np.log(p / q)).sum(),
        "reverse_kl": (q * np.log(q / p)).sum(),
        "njs@0.25": divergences.normalised_js(p.ravel(), q.ravel(), 0.25),
        "entropy": -(q * np.log(q)).sum(),
        "total_correlation": divergences.total_correlation(q),
        "max_error": np.abs(p - q).max(),
        "fixed_point_error": np.abs(worlds.scheduled_sampling_fixed_point(p, 0.3) - q).max(),
    }
    for name, value in expected.items():
        assert measured[f"exact/{name}"] == pytest.approx(float(value), rel=1e-4), name
    per_token = {"nll_oracle": -(q * np.log(p)).sum() / 4, "nll_test": -(p * np.log(q)).sum() / 4}
    per_token |= {"entropy_sampled": expected["entropy"] / 4, "entropy_world": -(p * np.log(p)).sum() / 4}
    per_token["forward_kl_sampled"] = (p * np.log(p / q)).sum() / 4
    per_token["reverse_kl_sampled"] = (q * np.log(q / p)).sum() / 4
    for name, value in per_token.items():
        assert abs(measured[f"exact/{name}"] - value) < 4.5 * measured[f"exact/{name}_se"], name
    prefix_kls = sum(
        (q.sum(tuple(range(t, 4))) - p.sum(tuple(range(t, 4)))).ravel() @ (a * np.log(a / b)).sum(-1).ravel()
        for t, (a, b) in enumerate(zip(worlds.conditionals(p), worlds.conditionals(q), strict=True))
    )
    assert measured["exact/exposure_gap"] == pytest.approx(prefix_kls, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"mode": "exact"}, {}),
        ({"coin": "sequence"}, {"coin": "sequence"}),
        ({"mode": "passes:1"}, {"coin": "parallel"}),
        ({"label": "expert"}, {"label": "expert"}),
        ({"mode": "passes:1", "coin": "sequence"}, None),
        ({"mode": "passes:2"}, None),
        ({"feed": "argmax"}, None),
        (None, None),
    ],
)
def test_a_fixed_point_is_that_of_the_run_or_unknown(config, options, arguments):
    """options: those of scheduled sampling; None: another objective."""
    config.data.name, config.model.name = "world:table", "tabular"
    if options is not None:
        config.objective.name = "scheduled_sampling"
        config.scheduled_sampling.update({"keep_true": 0.5, **options})
    world = worlds.build("table", config.data.world)
    optimum = objective_in_world(config).optimum(world)
    if arguments is None:
        assert optimum is None
    else:
        assert (optimum.name, optimum.excess_prior) == ("fixed_point", None)
        assert np.array_equal(optimum.table, worlds.scheduled_sampling_fixed_point(world, 0.5, **arguments))


def test_a_world_of_too_many_prefixes_for_the_recursion_has_no_known_end(config):
    config.data.name, config.objective.name, config.model.name = "world:table", "scheduled_sampling", "factorised"
    config.data.world.vocab, config.data.world.length = 10, 5
    world = worlds.build("table", config.data.world)
    with pytest.raises(ConfigError, match="too many"):
        worlds.scheduled_sampling_fixed_point(world, 0.5)
    assert objective_in_world(config).optimum(world) is None


def test_a_gaussian_in_its_own_world_and_beside_it(config):
    config.data.name, config.data.world.covariance, config.data.world.held_out = (
        "world:gaussian",
        ((0.25, 0.0), (0.0, 0.25)),
        4000,
    )
    config.model.name, config.model.gaussian.scale = "gaussian", 0.5
    objective = objective_in_world(config)
    params = objective.model.init(jax.random.key(0))
    same = measure(config, objective, params)
    assert abs(same["exact/forward_kl"]) < 1e-5 and abs(same["exact/reverse_kl"]) < 1e-5
    assert same["exact/entropy"] == pytest.approx(np.log(2 * np.pi * np.e * 0.25), rel=1e-4)
    assert same["exact/sd"] == pytest.approx(0.5, rel=1e-4)
    wider = measure(config, objective, {**params, "log_scale": jnp.log(1.0)})
    closed = lambda a, b: np.log(b / a) + a / b - 1  # KL of N(0, a I) from N(0, b I) in two dimensions
    assert wider["exact/forward_kl"] == pytest.approx(closed(0.25, 1.0), rel=1e-4)
    assert wider["exact/reverse_kl"] == pytest.approx(closed(1.0, 0.25), rel=1e-3)


def test_only_worlds_are_known_exactly(config):
    with pytest.raises(ConfigError, match="world"):
        exact.build(config, None, None, None)
