"""The small models of exact worlds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gentrain.datasets.spec import PointSpec, TextSpec
from gentrain.errors import ConfigError
from gentrain.models import factorised, factorised_mixture, feeding, gaussian, mlp, tabular

SEQUENCES = TextSpec(3, 4)
POINTS = PointSpec(0, 2)


def random_params(model, seed):
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)


def everything():
    return np.indices((3,) * 4, np.int32).reshape(4, -1).T


@pytest.mark.parametrize("file", [tabular, factorised, factorised_mixture])
def test_a_law_of_sequences_sums_to_one_and_steps_as_it_applies(config, file):
    config.model.name = file.__name__.rpartition(".")[2]
    model = file.build(config.model, SEQUENCES)
    params = random_params(model, 3)
    probabilities = np.exp(jax.jit(model.log_prob)(params, everything()))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)

    @jax.jit
    def both_ways(params):
        inputs = feeding.shift_right(jnp.asarray(everything()), 3, None)
        step = lambda cache, token: model.step(params, cache, token)
        _, stepped = jax.lax.scan(step, model.start(params, 81, 4), inputs.T)
        return stepped.swapaxes(0, 1), model.apply(params, inputs)

    np.testing.assert_allclose(*both_ways(params), atol=1e-6)


def test_a_mixture_is_the_mean_of_its_components_by_weight(config):
    config.model.name = "factorised_mixture"
    model = factorised_mixture.build(config.model, SEQUENCES)
    params = random_params(model, 3)
    laws = np.exp(scipy.special.log_softmax(params["table"], axis=-1))
    of_components = [np.einsum("a,b,c,d->abcd", *law).ravel() for law in laws]
    expected = scipy.special.softmax(params["weights"]) @ np.stack(of_components)
    np.testing.assert_allclose(np.exp(jax.jit(model.log_prob)(params, everything())), expected, rtol=1e-4)


def test_a_table_can_be_any_law(config):
    model = tabular.build(config.model, SEQUENCES)
    wanted = np.random.default_rng(0).dirichlet(np.ones(81)).reshape((3,) * 4)
    rows = []
    for t in range(4):
        joint = wanted.sum(axis=tuple(range(t + 1, 4)))
        rows.append(np.log(joint / joint.sum(-1, keepdims=True)).reshape(-1, 3))
    params = {"table": np.concatenate(rows).astype(np.float32)}
    np.testing.assert_allclose(np.exp(jax.jit(model.log_prob)(params, everything())), wanted.ravel(), rtol=1e-4)


def test_a_gaussian_is_a_density_and_samples_itself(config):
    config.model.name, config.model.gaussian.mean, config.model.gaussian.scale = "gaussian", 0.5, 0.3
    model = gaussian.build(config.model, POINTS)
    params = model.init(jax.random.key(0))
    axis = np.linspace(-3, 4, 281)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2).astype(np.float32)
    mass = np.exp(jax.jit(model.log_prob)(params, points)).sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=1e-4)
    drawn = np.asarray(jax.jit(model.sample)(params, jax.random.split(jax.random.key(1), 20_000)))
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=5 * 0.3 / 141)
    np.testing.assert_allclose(drawn.std(0), 0.3, rtol=0.03)


def test_models_refuse_data_they_cannot_model(config, spec):
    for file in (tabular, factorised, factorised_mixture):
        config.model.name = file.__name__.rpartition(".")[2]
        with pytest.raises(ConfigError, match="fixed length"):
            file.build(config.model, spec)
    with pytest.raises(ConfigError, match="more than"):
        tabular.build(config.model, TextSpec(3, 20))
    with pytest.raises(ConfigError, match="points"):
        gaussian.build(config.model, SEQUENCES)


def test_a_critic_s_dropout_depends_on_its_own_key_alone(config):
    config.critic.update({"name": "mlp", "width": 32, "layers": 1, "dropout": 0.5})
    built = mlp.critic(config.critic, POINTS)
    params = jax.tree.map(lambda x: np.asarray(x) + np.float32(0.1), jax.jit(built.init)(jax.random.key(0)))
    points, keys = np.ones((4, 2), np.float32), jax.random.split(jax.random.key(1), 4)
    apply = jax.jit(built.apply)
    plain, dropped = np.asarray(apply(params, points)), np.asarray(apply(params, points, None, keys))
    assert np.ptp(plain) == 0 and len(np.unique(dropped)) == 4
    np.testing.assert_allclose(apply(params, points[:2], None, keys[2:]), dropped[2:], rtol=1e-6)
    many = apply(params, np.ones((4000, 2), np.float32), None, jax.random.split(jax.random.key(2), 4000))
    error = np.std(many) / np.sqrt(4000)
    assert error > 0 and abs(np.mean(many) - plain[0, 0]) < 4.5 * error


@pytest.mark.parametrize("spec", [POINTS, SEQUENCES])
def test_an_mlp_critic_starts_at_zero_and_can_leave_it(config, spec):
    config.critic.update({"name": "mlp", "width": 16, "layers": 2})
    built = mlp.critic(config.critic, spec)
    random = np.random.default_rng(0)
    points = spec is POINTS
    examples = random.normal(size=(9, 2)).astype(np.float32) if points else random.integers(0, 3, (9, 4))
    apply, params = jax.jit(built.apply), jax.device_get(jax.jit(built.init)(jax.random.key(0)))
    estimate = np.asarray(apply(params, examples))
    assert estimate.shape == (9, 1) and (estimate == 0).all()
    last = params["layer_2"]
    moved = params | {"layer_2": last | {"kernel": np.ones_like(last["kernel"])}}
    assert len(np.unique(apply(moved, examples))) > 5


def test_an_mlp_is_its_formula_and_starts_with_kinks_all_over_the_plane(config):
    """W relu(W' relu(W'' z + b'') + b') + b; kernels of variance 2 / fan_in, and 1 / fan_in of the last; biases of 1
    and, of the last, 0."""
    config.model.update({"name": "mlp", "width": 64, "layers": 2})
    config.model.mlp.latent = 32
    model, keys = mlp.build(config.model, POINTS), jax.random.split(jax.random.key(1), 5)
    params = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
    for name, (gain, bias) in {"layer_0": (2, 1), "layer_1": (2, 1), "layer_2": (1, 0)}.items():
        kernel = params[name]["kernel"]
        assert abs(kernel.std() * np.sqrt(len(kernel) / gain) - 1) < 0.2, name
        assert abs(params[name]["bias"].std() - bias) < 0.3 * bias + 1e-9, name
    x = np.asarray(jax.jit(jax.vmap(lambda key: jax.random.normal(key, (32,))))(keys))
    for name in sorted(params):
        x = (x if name == "layer_0" else np.maximum(x, 0)) @ params[name]["kernel"] + params[name]["bias"]
    np.testing.assert_allclose(jax.jit(model.sample)(params, keys), x, rtol=1e-4, atol=1e-4)
