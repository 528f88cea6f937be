"""What every generator and critic of images promises, checked on tiny random instances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_config
from gentrain.datasets.spec import ImageSpec, TextSpec
from gentrain.errors import ConfigError
from gentrain.models import dcgan, images, r3gan, resnet
from gentrain.models.resnet_options import CriticOptions
from gentrain.plugins import load
from tests.models.helpers import conv, weights

CLASSES, BATCH, SHAPE = 5, 3, (8, 8, 1)
models = pytest.mark.parametrize("name", ["dcgan", "resnet", "r3gan"])
KEYS = jax.random.split(jax.random.key(1), BATCH)
FAST_KEY = jax.random.key(1, impl="unsafe_rbg")  # which compiles faster
LABELS = np.asarray([[0], [3], [2]], np.int32)
OTHER = np.asarray([[0], [1], [2]], np.int32)
ONLY_SECOND = np.array([False, True, False])


def settings(name, role="model", **changes):
    """The section of a generator or of a critic."""
    config = get_config()[role]
    config.update({"name": name, "width": 4, "layers": 1} | changes)
    if role == "model":
        config[name].latent = 6
    return config


def data(shape=SHAPE, classes=CLASSES):
    return ImageSpec(17, int(np.prod(shape)), context_vocab=classes, shape=shape)


@functools.cache
def make(name):
    """-> (sampler, critic, both compiled, their parameters, all of them random, also those that start at 0 or 1)."""
    family = load("models", name)
    sampler, critic = family.build(settings(name), data()), family.critic(settings(name, "critic"), data())
    rng = np.random.default_rng(0)

    def drawn(x):
        deviation = np.prod(x.shape[:-1]) ** -0.5 if x.ndim > 1 else 0.3
        return rng.normal(0.1, deviation, x.shape).astype(x.dtype)

    params = [jax.tree.map(drawn, jax.eval_shape(each.init, jax.random.key(0))) for each in (sampler, critic)]
    sampler, critic = sampler._replace(sample=jax.jit(sampler.sample)), critic._replace(apply=jax.jit(critic.apply))
    return sampler, critic, *params


def changed(a, b):
    """(n,): which rows differ."""
    return (np.asarray(a) != np.asarray(b)).reshape(len(a), -1).any(1)


def noise():
    """Pictures without a subject, (n, height, width, channels)."""
    return np.random.default_rng(1).uniform(-1, 1, (BATCH, *SHAPE)).astype(np.float32)


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
    config, judge = (settings(name, role, compute_dtype="bfloat16") for role in ("model", "critic"))
    spec, family = data(shape, classes), load("models", name)
    sampler, critic = family.build(config, spec), family.critic(judge, spec)
    one, two = jax.eval_shape(sampler.init, KEYS[0]), jax.eval_shape(critic.init, KEYS[0])
    assert {x.dtype.name for x in jax.tree.leaves((one, two))} == {"float32"}
    drawn = jax.eval_shape(sampler.sample, one, KEYS, LABELS if classes else None)
    assert (drawn.shape, drawn.dtype) == ((BATCH, *shape), jnp.float32)
    estimate = jax.eval_shape(critic.apply, two, drawn, LABELS if classes else None)
    assert (estimate.shape, estimate.dtype) == ((BATCH, 1), jnp.float32)


@models
def test_an_image_is_a_function_of_its_own_key_and_label(name):
    sampler, _, params, _ = make(name)
    drawn = np.asarray(sampler.sample(params, KEYS, LABELS))
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
    shown = noise()
    estimate = np.asarray(critic.apply(params, shown, LABELS))
    assert (estimate != 0).all()
    assert (changed(critic.apply(params, shown, OTHER), estimate) == ONLY_SECOND).all()
    for place in ((0, 0), (7, 7), (3, 4)):
        other = shown.copy()
        other[(1, *place)] += 1.0
        assert (changed(critic.apply(params, other, LABELS), estimate) == ONLY_SECOND).all()


@models
def test_a_critic_starts_at_zero_and_can_leave_it(name):
    _, critic, _, _ = make(name)
    key = jax.random.key(0, impl="unsafe_rbg")  # which compiles faster
    params = jax.device_get(jax.jit(critic.init)(key))
    shown, estimate = noise(), lambda changes: np.asarray(critic.apply(params | changes, shown, LABELS))
    assert (estimate({}) == 0).all()
    one = {"output": {"kernel": np.ones_like(params["output"]["kernel"]), "bias": np.zeros(1, np.float32)}}
    assert len(np.unique(estimate(one))) == BATCH  # features are those of the image
    third = (np.arange(CLASSES) == 3).astype(np.float32)[:, None]
    rows = {"label": jax.tree.map(lambda x: np.broadcast_to(third, x.shape), params["label"])}
    assert (changed(estimate(rows), np.zeros((BATCH, 1))) == ONLY_SECOND).all()


@models
def test_every_parameter_learns(name):
    sampler, critic, *params = make(name)
    loss = lambda params: critic.apply(params[1], sampler.sample(params[0], KEYS, LABELS), LABELS).sum()
    slopes = jax.device_get(jax.jit(jax.grad(loss))(params))
    largest = max(np.abs(slope).max() for slope in jax.tree.leaves(slopes))
    for path, slope in jax.tree.leaves_with_path(slopes):
        assert 1e-5 * largest < np.abs(slope).max() < np.inf, jax.tree_util.keystr(path)  # above what is rounding


def test_without_labels_a_context_is_ignored_and_with_them_it_must_be_there():
    sampler, critic, *params = make("dcgan")
    with pytest.raises(ValueError, match="context of 5 labels"):
        sampler.sample(params[0], KEYS)
    with pytest.raises(ValueError, match="context of 5 labels"):
        critic.apply(params[1], noise())
    names = lambda tree: set(jax.eval_shape(tree.init, KEYS[0]))
    unlabelled = data(classes=0)
    plain = dcgan.build(settings("dcgan"), unlabelled), dcgan.critic(settings("dcgan", "critic"), unlabelled)
    assert [names(tree) for tree in plain] == [{"body"}, {"body", "output"}]
    assert [names(tree) for tree in (sampler, critic)] == [{"body", "label"}, {"body", "output", "label"}]


@models
def test_other_data_than_images_are_a_config_error(name):
    family, spec = load("models", name), TextSpec(17, 12)
    with pytest.raises(ConfigError, match=f"model.name='{name}' makes images, and the data are text"):
        family.build(settings(name), spec)
    with pytest.raises(ConfigError, match=f"critic.name='{name}' judges images, and the data are text"):
        family.critic(settings(name, "critic"), spec)


def test_dropout_in_a_row_depends_on_its_key_alone():
    _, plain, _, params = make("dcgan")
    critic = dcgan.critic(settings("dcgan", "critic", dropout=0.4), data())
    shown = np.broadcast_to(noise()[:1], (BATCH, *SHAPE))
    label = np.zeros((BATCH, 1), np.int32)
    apply = jax.jit(critic.apply)
    estimate = np.asarray(apply(params, shown, label, KEYS))
    assert len(np.unique(estimate)) == BATCH
    assert not changed(apply(params, shown, label, KEYS[::-1]), estimate[::-1]).any()
    assert not changed(apply(params, shown, label), plain.apply(params, shown, label)).any()
    draws = [str(jax.make_jaxpr(each.apply)(params, shown, label, KEYS)) for each in (critic, plain)]
    assert ["random_bits" in program for program in draws] == [True, False]


OPTIONS = CriticOptions.of(settings("resnet", "critic"))  # of modules by themselves


def normal(*shape):
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def test_doubling_is_a_transposed_convolution():
    module = dcgan.Double(3, OPTIONS)
    x = normal(2, 3, 5, 4)
    params = {"params": {"kernel": normal(4, 4, 4, 3)}}
    dimensions = ("NHWC", "HWIO", "NHWC")
    want = jax.lax.conv_transpose(x, params["params"]["kernel"], (2, 2), "SAME", dimension_numbers=dimensions)
    np.testing.assert_allclose(jax.jit(module.apply)(params, x), want, rtol=1e-5, atol=1e-5)


def test_groups_are_the_same_on_all_devices(monkeypatch):
    module = r3gan.Grouped(jax.nn.initializers.normal(1.0), OPTIONS)
    x = normal(2, 3, 4, 48)
    params = {"params": {"kernel": normal(3, 3, 16, 48), "bias": normal(48)}}
    apply = jax.jit(module.apply)
    apart, other = (np.asarray(apply(params, inputs)) for inputs in (x, x + (np.arange(48) == 20)))
    assert (changed(other.transpose(3, 0, 1, 2), apart.transpose(3, 0, 1, 2)) == (np.arange(48) // 16 == 1)).all()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(jax.jit(lambda *given: module.apply(*given))(params, x), apart, rtol=1e-4, atol=1e-4)


def test_residual_blocks_of_r3gan_start_as_nothing():
    module = r3gan.Block(16, OPTIONS)
    x = normal(1, 2, 2, 32)
    params = jax.device_get(jax.jit(module.init)(FAST_KEY, x))
    assert not changed(jax.jit(module.apply)(params, x), x).any()
    kernels = params["params"]["Conv_0"]["kernel"], params["params"]["Grouped_0"]["kernel"]
    for kernel in kernels:  # He's standard deviation for leaky ReLUs, times 16^(-1/4)
        want = (2 / 1.04 / np.prod(kernel.shape[:-1])) ** 0.5 / 2
        assert abs(kernel.std() / want - 1) < 0.1


def normed(x, scale, bias):
    """Of each image and each of 4 groups of channels."""
    parts = x.reshape(*x.shape[:3], 4, -1)
    mean, variance = parts.mean((1, 2, 4), keepdims=True), parts.var((1, 2, 4), keepdims=True)
    return ((parts - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape) * scale + bias


def relu(x, slope=0.0):
    assert (x < 0).any()
    return np.maximum(x, slope * x)


def call(module, params, x):
    return np.asarray(jax.jit(module.apply)({"params": params}, x))


def assert_is(module, params, x, want):
    np.testing.assert_allclose(call(module, params, x), want, rtol=1e-3, atol=1e-3)


def test_dcgan_is_its_formula():
    """Transposed convolutions, normalised, with ReLUs; and strided ones with leaky ReLUs, not normalised."""
    body, z = dcgan.Generator(OPTIONS, SHAPE), normal(2, 6)
    params = weights(body, z)
    x = np.reshape(z @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], (2, 4, 4, 8))
    x = call(dcgan.Double(4, OPTIONS), params["Double_0"], relu(normed(x, **params["GroupNorm_0"])))
    assert_is(body, params, z, conv(relu(normed(x, **params["GroupNorm_1"])), **params["Conv_0"]))
    body, x = dcgan.Features(OPTIONS), normal(2, *SHAPE)
    params = weights(body, x)
    features = relu(conv(relu(conv(x, **params["Conv_0"]), 0.2), **params["Conv_1"], stride=2), 0.2)
    assert_is(body, params, x, features.reshape(2, -1))


@models
def test_critics_are_linear_in_features_with_a_row_for_each_label(name):
    """<w, features> + b + <v_label, features>."""
    _, critic, _, params = make(name)
    body = load("models", name).Features(CriticOptions.of(settings(name, "critic")))
    shown = noise()
    features = call(body, params["body"], shown)
    rows = params["output"]["kernel"].T + params["label"]["kernel"][LABELS[:, 0]]
    want = (rows * features).sum(1, keepdims=True) + params["output"]["bias"]
    np.testing.assert_allclose(critic.apply(params, shown, LABELS), want, rtol=1e-4, atol=1e-4)


def test_the_generator_of_r3gan_is_its_formula():
    """A learned picture times a map of z, x + conv(leaky(conv(leaky(conv(x))))) of leaks of 0.2, and a convolution."""
    module, z = r3gan.Generator(OPTIONS, (7, 7, 1)), normal(2, 6)  # one resolution, and 8 channels inside: one group
    params = weights(module, z)
    x, block = params["basis"][None] * (z @ params["Dense_0"]["kernel"])[:, None, None], params["Block_0"]
    inner = relu(conv(relu(conv(x, **block["Conv_0"]), 0.2), **block["Grouped_0"]), 0.2)
    assert_is(module, params, z, conv(x + conv(inner, **block["Conv_1"]), **params["Conv_0"]))


def test_features_of_r3gan_start_at_the_size_of_one_pixel():
    """Weights of a sum over h w pixels are drawn with variance 1 / (h w)."""
    module = r3gan.Features(CriticOptions.of(settings("r3gan", "critic", width=16)))
    basis = jax.jit(module.init)(FAST_KEY, normal(1, 7, 7, 1))["params"]["basis"]
    assert basis.shape == (7, 7, 16) and abs(float(basis.std()) * 7 - 1) < 0.1


def test_kernels_after_a_relu_start_with_twice_the_variance_of_their_fan_in():
    """An output of a transposed convolution sees a quarter of its taps."""
    x = normal(1, 2, 2, 16)
    for module, fan_in in ((dcgan.Double(16, OPTIONS), 4 * 16), (images.conv(OPTIONS, 16), 9 * 16)):
        kernel = jax.jit(module.init)(FAST_KEY, x)["params"]["kernel"]
        assert abs(float(kernel.std()) / np.sqrt(2 / fan_in) - 1) < 0.1


def test_the_generator_of_the_resnet_is_its_formula():
    """A linear map, x' + conv(relu(norm(conv(relu(norm(x))')))), every pixel of x' being 2x2 of x, with a 1x1
    convolution where channels change, and conv(relu(norm(x)))."""
    module, z = resnet.Generator(OPTIONS, SHAPE), normal(2, 6)
    params = weights(module, z)
    twice = lambda y: np.kron(y, np.ones((1, 2, 2, 1), np.float32))
    x, block = z @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], params["Up_0"]
    x = x.reshape(2, 4, 4, 8)
    inner = conv(twice(relu(normed(x, **block["GroupNorm_0"]))), **block["Conv_0"])
    inner = conv(relu(normed(inner, **block["GroupNorm_1"])), **block["Conv_1"])
    x = twice(conv(x, **block["Conv_2"])) + inner
    assert_is(module, params, z, conv(relu(normed(x, **params["GroupNorm_0"])), **params["Conv_0"]))


def test_the_critic_of_the_resnet_is_its_formula():
    """Blocks x + conv(relu(conv(relu(x)))), no ReLU before an image; the last at one resolution takes means of 2x2
    pixels, but for the coarsest, whose ReLUs are summed over pixels. Two blocks at each of two resolutions."""
    module, x = resnet.Features(CriticOptions.of(settings("resnet", "critic", layers=2))), normal(2, 8, 8, 1)
    params = weights(module, x)
    y = x
    for number in range(4):
        block = params[f"Down_{number}"]
        inner = conv(relu(conv(relu(y) if number else y, **block["Conv_0"])), **block["Conv_1"])
        y = inner + (conv(y, **block["Conv_2"]) if "Conv_2" in block else y)
        if number == 1:
            y = (y[:, ::2, ::2] + y[:, 1::2, ::2] + y[:, ::2, 1::2] + y[:, 1::2, 1::2]) / 4
    assert_is(module, params, x, relu(y).sum((1, 2)))
