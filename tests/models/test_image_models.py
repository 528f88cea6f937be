"""What every generator and critic of images promises, checked on tiny random instances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_config
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.models import dcgan, images, r3gan
from gentrain.plugins import load

CLASSES, BATCH, SHAPE = 5, 3, (8, 8, 1)
models = pytest.mark.parametrize("name", ["dcgan", "resnet", "r3gan"])
KEYS = jax.random.split(jax.random.key(1), BATCH)
LABELS = jnp.asarray([[0], [3], [2]], jnp.int32)
OTHER = jnp.asarray([[0], [1], [2]], jnp.int32)
ONLY_SECOND = np.array([False, True, False])


def settings(name, **changes):
    config = get_config().model
    config.update({"name": name, "width": 4, "latent": 6, "layers": 1} | changes)
    return config


def data(shape=SHAPE, classes=CLASSES, kind="image"):
    return Spec(17, int(np.prod(shape)), None, kind, str, classes, (1,), str, shape)


@functools.cache
def make(name):
    """-> (sampler, critic, both compiled, their parameters, all of them random, also those that start at 0 or 1)."""
    room = load("models", name)
    sampler, critic = room.build(settings(name), data()), room.critic(settings(name), data())
    rng = np.random.default_rng(0)

    def drawn(x):
        return jnp.asarray(rng.normal(0.1, np.prod(x.shape[:-1]) ** -0.5 if x.ndim > 1 else 0.3, x.shape), x.dtype)

    params = [jax.tree.map(drawn, jax.eval_shape(each.init, jax.random.key(0))) for each in (sampler, critic)]
    sampler, critic = sampler._replace(sample=jax.jit(sampler.sample)), critic._replace(apply=jax.jit(critic.apply))
    return sampler, critic, *params


def changed(a, b):
    """(n,): which rows differ."""
    return np.asarray(a != b).reshape(len(a), -1).any(1)


def test_resolutions_halve_to_an_odd_side_or_to_seven_and_fewer_pixels():
    sides = lambda *shape: [found[:2] for found in images.scales((*shape, 1), 2)]
    assert sides(8, 8) == [(8, 8), (4, 4)]
    assert sides(28, 28) == [(28, 28), (14, 14), (7, 7)]
    assert sides(32, 32) == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert sides(12, 40) == [(12, 40), (6, 20)]
    assert sides(9, 8) == [(9, 8)]
    assert [found[2] for found in images.scales((128, 128, 3), 3)] == [3, 6, 12, 24, 24, 24]


@models
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (12, 40, 3), (7, 9, 1)], ids=str)
def test_shapes_and_dtypes(name, shape):
    classes = CLASSES if shape == (7, 9, 1) else 0
    config, spec, room = settings(name, compute_dtype="bfloat16"), data(shape, classes), load("models", name)
    sampler, critic = room.build(config, spec), room.critic(config, spec)
    one, two = jax.eval_shape(sampler.init, KEYS[0]), jax.eval_shape(critic.init, KEYS[0])
    assert {x.dtype.name for x in jax.tree.leaves((one, two))} == {"float32"}
    drawn = jax.eval_shape(sampler.sample, one, KEYS, LABELS if classes else None)
    assert (drawn.shape, drawn.dtype) == ((BATCH, *shape), jnp.float32)
    estimate = jax.eval_shape(critic.apply, two, drawn, LABELS if classes else None)
    assert (estimate.shape, estimate.dtype) == ((BATCH, 1), jnp.float32)


@models
def test_an_image_is_a_function_of_its_own_key_and_label(name):
    sampler, _, params, _ = make(name)
    drawn = sampler.sample(params, KEYS, LABELS)
    assert np.abs(drawn).max() <= 1 and drawn.std() > 0.01 and not (drawn[0] == drawn[1]).all()
    np.testing.assert_allclose(sampler.sample(params, KEYS[::-1], LABELS[::-1]), drawn[::-1], rtol=1e-5, atol=1e-5)
    assert (changed(sampler.sample(params, KEYS, OTHER), drawn) == ONLY_SECOND).all()
    keys = KEYS.at[1].set(jax.random.key(7))
    assert (changed(sampler.sample(params, keys, LABELS), drawn) == ONLY_SECOND).all()


def test_images_drawn_one_by_one_are_those_of_a_batch():
    sampler, _, params, _ = make("dcgan")
    one_by_one = jax.jit(lambda *batch: jax.lax.map(lambda one: sampler.sample(params, *one)[0], batch))
    drawn = one_by_one(KEYS[:, None], LABELS[:, None])
    np.testing.assert_allclose(drawn, sampler.sample(params, KEYS, LABELS), rtol=1e-5, atol=1e-5)


@models
def test_an_estimate_is_of_its_own_image_and_label(name):
    _, critic, _, params = make(name)
    shown = jax.random.uniform(KEYS[0], (BATCH, *SHAPE), minval=-1)
    estimate = critic.apply(params, shown, LABELS)
    assert (estimate != 0).all()
    assert (changed(critic.apply(params, shown, OTHER), estimate) == ONLY_SECOND).all()
    for place in ((0, 0), (7, 7), (3, 4)):
        assert (changed(critic.apply(params, shown.at[1, *place].add(1.0), LABELS), estimate) == ONLY_SECOND).all()


@models
def test_a_critic_starts_at_zero_and_can_leave_it(name):
    _, critic, _, _ = make(name)
    params = jax.jit(critic.init)(jax.random.key(0))
    shown = jax.random.uniform(KEYS[0], (BATCH, *SHAPE), minval=-1)
    assert (critic.apply(params, shown, LABELS) == 0).all()
    one = {"output": {"kernel": jnp.ones_like(params["output"]["kernel"]), "bias": jnp.zeros(1)}}
    assert len(np.unique(critic.apply(params | one, shown, LABELS))) == BATCH  # features are those of the image
    rows = {"label": jax.tree.map(lambda x: x.at[3].set(1.0), params["label"])}
    assert (changed(critic.apply(params | rows, shown, LABELS), jnp.zeros((BATCH, 1))) == ONLY_SECOND).all()


@models
def test_every_parameter_learns(name):
    sampler, critic, *params = make(name)
    loss = lambda params: critic.apply(params[1], sampler.sample(params[0], KEYS, LABELS), LABELS).sum()
    slopes = jax.jit(jax.grad(loss))(params)
    largest = max(jnp.abs(slope).max() for slope in jax.tree.leaves(slopes))
    for path, slope in jax.tree.leaves_with_path(slopes):
        assert 1e-5 * largest < jnp.abs(slope).max() < jnp.inf, jax.tree_util.keystr(path)  # above what is rounding


def test_without_labels_a_context_is_ignored_and_with_them_it_must_be_there():
    sampler, critic, *params = make("dcgan")
    with pytest.raises(ValueError, match="context of 5 labels"):
        sampler.sample(params[0], KEYS)
    with pytest.raises(ValueError, match="context of 5 labels"):
        critic.apply(params[1], jnp.zeros((BATCH, *SHAPE)))
    names = lambda tree: set(jax.eval_shape(tree.init, KEYS[0]))
    plain = dcgan.build(settings("dcgan"), data(classes=0)), dcgan.critic(settings("dcgan"), data(classes=0))
    assert [names(tree) for tree in plain] == [{"body"}, {"body", "output"}]
    assert [names(tree) for tree in (sampler, critic)] == [{"body", "label"}, {"body", "output", "label"}]


@models
def test_other_data_than_images_are_a_config_error(name):
    room, spec = load("models", name), data((), 0, "text")
    with pytest.raises(ConfigError, match=f"model.name='{name}' makes images, and this data is text"):
        room.build(settings(name), spec)
    with pytest.raises(ConfigError, match=f"critic.name='{name}' judges images, and this data is text"):
        room.critic(settings(name), spec)


def test_dropout_in_a_row_depends_on_its_key_alone():
    _, plain, _, params = make("dcgan")
    critic = dcgan.critic(settings("dcgan", dropout=0.4), data())
    shown = jnp.broadcast_to(jax.random.uniform(KEYS[0], (1, *SHAPE), minval=-1), (BATCH, *SHAPE))
    label = jnp.zeros((BATCH, 1), jnp.int32)
    apply = jax.jit(critic.apply)
    estimate = apply(params, shown, label, KEYS)
    assert len(np.unique(estimate)) == BATCH
    assert (apply(params, shown, label, KEYS[::-1]) == estimate[::-1]).all()
    assert (apply(params, shown, label) == plain.apply(params, shown, label)).all()
    draws = [str(jax.make_jaxpr(each.apply)(params, shown, label, KEYS)) for each in (critic, plain)]
    assert ["random_bits" in program for program in draws] == [True, False]


def test_doubling_is_a_transposed_convolution():
    module = dcgan.Double(3, settings("dcgan"))
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    params = module.init(jax.random.key(1), x)
    dimensions = ("NHWC", "HWIO", "NHWC")
    want = jax.lax.conv_transpose(x, params["params"]["kernel"], (2, 2), "SAME", dimension_numbers=dimensions)
    np.testing.assert_allclose(module.apply(params, x), want, rtol=1e-5, atol=1e-5)


def test_groups_are_the_same_on_all_devices(monkeypatch):
    module = r3gan.Grouped(jax.nn.initializers.normal(1.0), settings("r3gan"))
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 48))
    params = jax.tree.map(lambda x: x + 0.1, module.init(jax.random.key(1), x))
    apart = module.apply(params, x)
    other = module.apply(params, x.at[..., 20].add(1.0))
    assert (changed(other.transpose(3, 0, 1, 2), apart.transpose(3, 0, 1, 2)) == (np.arange(48) // 16 == 1)).all()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(module.apply(params, x), apart, rtol=1e-4, atol=1e-4)


def test_residual_blocks_of_r3gan_start_as_nothing():
    module = r3gan.Block(16, settings("r3gan"))
    x = jax.random.normal(jax.random.key(0), (1, 2, 2, 32))
    params = module.init(jax.random.key(1), x)
    assert (module.apply(params, x) == x).all()
    kernels = params["params"]["Conv_0"]["kernel"], params["params"]["Grouped_0"]["kernel"]
    for kernel in kernels:  # He's standard deviation for leaky ReLUs, times 16^(-1/4)
        want = (2 / 1.04 / np.prod(kernel.shape[:-1])) ** 0.5 / 2
        assert abs(kernel.std() / want - 1) < 0.1
