"""What the models of images share: resolutions, layers, labels at both ends, the way out of Flax."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gentrain.datasets.spec import ImageSpec, Spec
from gentrain.errors import ConfigError
from gentrain.models import convolutions
from gentrain.models.base import Critic, Params, Sampler
from gentrain.models.base_options import ImageModelOptions
from gentrain.models.layers import keep_mask, unit_variance
from gentrain.options.sections import NetworkSection

after_relu = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # He et al. 2015
Pixels = Float[Array, "n _ _ _"]  # (n, height, width, channels), which layers change
Labels = Int[Array, "n 1"]


def scales(shape: tuple[int, ...], width: int) -> list[tuple[int, int, int]]:
    """(height, width, channels) of every resolution of an image, the finest first.

    Both sides are halved while they are even and the shorter is above 7. Channels start at `width` and double, up to
    8 times as many.
    """
    rows, columns, channels = shape[0], shape[1], width
    resolutions = [(rows, columns, channels)]
    while rows % 2 == columns % 2 == 0 and min(rows, columns) > 7:
        rows, columns, channels = rows // 2, columns // 2, min(2 * channels, 8 * width)
        resolutions.append((rows, columns, channels))
    return resolutions


def dtypes(config: NetworkSection) -> Any:
    """The types of a layer of Flax."""
    return {"dtype": config.compute_dtype, "param_dtype": config.param_dtype}


def conv(config: NetworkSection, features: int, size: int = 3, **options: Any) -> nn.Conv:
    """A convolution of zero padding whose kernel is drawn for inputs that come from a ReLU, unless options say more."""
    convolve = convolutions.as_convolution(convolutions.convolve)
    options = {"kernel_init": after_relu, "conv_general_dilated": convolve} | dtypes(config) | options
    return nn.Conv(features, (size, size), **options)


def norm(config: NetworkSection, x: Pixels) -> Pixels:
    """Group normalisation, 4 groups (Wu & He 2018): statistics of each image alone."""
    return nn.GroupNorm(math.gcd(4, x.shape[-1]), **dtypes(config))(x)


class Generator(nn.Module):
    """tanh(body(z, label)), float32. A label is a vector of as many numbers as z, put beside it.

    body: (n, numbers) -> (n, height, width, channels). classes: 0 without labels.
    """

    body: nn.Module
    config: NetworkSection
    classes: int

    @nn.compact
    def __call__(self, z: Float[Array, "n latent"], context: Labels | None) -> Pixels:
        if self.classes:
            table: Any = {"embedding_init": nn.initializers.normal(1.0), "param_dtype": self.config.param_dtype}
            rows = nn.Embed(self.classes, z.shape[-1], name="label", **table)(labels(context, self.classes))
            z = jnp.concatenate([z, rows.astype(z.dtype)], axis=-1)
        return jnp.tanh(self.body(z.astype(self.config.compute_dtype)).astype(jnp.float32))


class Judge(nn.Module):
    """<w, features> + b, and + <v_label, features> with labels (Miyato & Koyama 2018), float32; 0 at the start.

    body: images -> features (n, numbers). classes: 0 without labels. keys (n,) switch dropout on.
    """

    body: nn.Module
    config: NetworkSection
    classes: int

    @nn.compact
    def __call__(self, images: Pixels, context: Labels | None, keys: Array | None) -> Float[Array, "n 1"]:
        features = self.body(images.astype(self.config.compute_dtype)).astype(jnp.float32)
        if keys is not None and self.config.dropout:
            features *= keep_mask(keys, 0, self.config.dropout, features.shape[1:], features.dtype)
        zero: Any = {"kernel_init": nn.initializers.zeros, "param_dtype": self.config.param_dtype}
        estimate = nn.Dense(1, name="output", **zero)(features)
        if self.classes:
            # A matrix and not a table of rows, so that what bounds the other kernels' norms bounds this one's.
            one_hot = jax.nn.one_hot(labels(context, self.classes), self.classes)
            rows = nn.Dense(features.shape[-1], use_bias=False, name="label", **zero)(one_hot)
            estimate += jnp.sum(rows * features, axis=-1, keepdims=True)
        return estimate


def labels(context: Labels | None, classes: int) -> Int[Array, "n"]:
    """The labels of a context. Raises ValueError where there is none."""
    if context is None:
        raise ValueError(f"this model has a context of {classes} labels, but none was given")
    return context[:, 0]


def sampler(make_body: Callable[[tuple[int, ...]], nn.Module], config: ImageModelOptions, spec: Spec) -> Sampler:
    """The pure functions of a generator, z ~ N(0, I) of config.latent numbers; conditional where data have labels.

    make_body: shape of an image -> the body of Generator. Raises ConfigError where the data are no images.
    """
    if not isinstance(spec, ImageSpec):
        raise ConfigError(f"model.name={config.name!r} makes images, and the data are {spec.kind}")
    module = Generator(make_body(spec.shape), config, spec.context_vocab)

    def init(key: Array) -> Params:
        return module.init(key, jnp.zeros((1, config.latent)), jnp.zeros((1, 1), jnp.int32))["params"]

    def sample(params: Params, keys: Array, context: Array | None = None) -> Any:
        z = jax.vmap(lambda key: jax.random.normal(key, (config.latent,)))(keys)
        return module.apply({"params": params}, z, context)

    return Sampler(init, sample)


def judge(body: nn.Module, config: NetworkSection, spec: Spec) -> Critic:
    """The pure functions of a critic of whole images, whose body is that of Judge; conditional where data have labels.

    Raises ConfigError where the data are no images.
    """
    if not isinstance(spec, ImageSpec):
        raise ConfigError(f"critic.name={config.name!r} judges images, and the data are {spec.kind}")
    module = Judge(body, config, spec.context_vocab)

    def init(key: Array) -> Params:
        return module.init(key, jnp.zeros((1, *spec.shape)), jnp.zeros((1, 1), jnp.int32), None)["params"]

    def apply(params: Params, examples: Array, context: Array | None = None, keys: Array | None = None) -> Any:
        return module.apply({"params": params}, examples, context, keys)

    return Critic(init, apply)


def start(config: NetworkSection, z: Float[Array, "n numbers"], shape: tuple[int, int, int]) -> Pixels:
    """A linear map of z to the coarsest resolution, (height, width, channels)."""
    return nn.Dense(math.prod(shape), kernel_init=unit_variance, **dtypes(config))(z).reshape(-1, *shape)
