"""The small models of exact worlds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import models
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.models import factorised, gaussian, mlp, tabular

SEQUENCES = Spec(3, 4, None, "text", str)


def random_params(model, seed):
    leaves, structure = jax.tree.flatten(model.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return jax.tree.unflatten(
        structure, [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )


def everything():
    return jnp.asarray(np.indices((3,) * 4).reshape(4, -1).T)


@pytest.mark.parametrize("file", [tabular, factorised])
def test_a_law_of_sequences_sums_to_one_and_steps_as_it_applies(config, file):
    model = file.build(config.model, SEQUENCES)
    params = random_params(model, 3)
    assert float(jnp.exp(models.log_prob(model, params, everything())).sum()) == pytest.approx(1, abs=1e-5)
    inputs = feeding.shift_right(everything(), 3, None)
    cache, stepped = model.start(params, 81, 4), []
    for t in range(4):
        cache, logits = model.step(params, cache, inputs[:, t])
        stepped.append(logits)
    np.testing.assert_array_equal(jnp.stack(stepped, 1), model.apply(params, inputs))


def test_a_table_can_be_any_law(config):
    model = tabular.build(config.model, SEQUENCES)
    wanted = np.random.default_rng(0).dirichlet(np.ones(81)).reshape((3,) * 4)
    rows = []
    for t in range(4):
        joint = wanted.sum(axis=tuple(range(t + 1, 4)))
        rows.append(np.log(joint / joint.sum(-1, keepdims=True)).reshape(-1, 3))
    params = {"table": jnp.asarray(np.concatenate(rows), jnp.float32)}
    np.testing.assert_allclose(jnp.exp(models.log_prob(model, params, everything())), wanted.ravel(), rtol=1e-4)


def test_a_gaussian_is_a_density_and_samples_itself(config):
    config.model.gaussian.mean, config.model.gaussian.scale = 0.5, 0.3
    model = gaussian.build(config.model, Spec(0, 2, None, "points", str))
    params = model.init(jax.random.key(0))
    axis = jnp.linspace(-3, 4, 281)
    points = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    mass = jnp.exp(model.log_prob(params, points)).sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=1e-4)
    drawn = np.asarray(model.sample(params, jax.random.split(jax.random.key(1), 20_000)))
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=5 * 0.3 / 141)
    np.testing.assert_allclose(drawn.std(0), 0.3, rtol=0.03)


def test_models_refuse_data_they_cannot_model(config, spec):
    for file in (tabular, factorised):
        with pytest.raises(ConfigError, match="fixed length"):
            file.build(config.model, spec)
    with pytest.raises(ConfigError, match="more than"):
        tabular.build(config.model, SEQUENCES._replace(length=20))
    with pytest.raises(ConfigError, match="points"):
        gaussian.build(config.model, SEQUENCES)


def test_a_critic_s_dropout_depends_on_its_own_key_alone(config):
    config.critic.update({"name": "mlp", "width": 32, "layers": 1, "dropout": 0.5})
    built = mlp.critic(config.critic, Spec(0, 2, None, "points", str))
    params = jax.tree.map(lambda x: x + 0.1, built.init(jax.random.key(0)))
    points, keys = jnp.ones((4, 2)), jax.random.split(jax.random.key(1), 4)
    plain, dropped = built.apply(params, points), built.apply(params, points, None, keys)
    assert np.ptp(plain) == 0 and len(np.unique(dropped)) == 4
    np.testing.assert_allclose(built.apply(params, points[:2], None, keys[2:]), dropped[2:], rtol=1e-6)
    many = built.apply(params, jnp.ones((4000, 2)), None, jax.random.split(jax.random.key(2), 4000))
    error = np.std(many) / np.sqrt(4000)
    assert error > 0 and abs(np.mean(many) - plain[0, 0]) < 4.5 * error
