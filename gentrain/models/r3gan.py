"""The residual networks of R3GAN (Huang et al. 2024): no normalisation; for relativistic losses with R1 and R2.

Blocks 1x1 - grouped 3x3 - 1x1 of twice the channels, leaky ReLUs, bilinear resampling, fix-up initialisation. As many
blocks a resolution as `layers`. The images end in a tanh, which the original has not.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.models import images
from gentrain.models.base import Critic, Sampler
from gentrain.models.layers import unit_variance
from gentrain.models.r3gan_options import CriticOptions, Options
from gentrain.options.sections import NetworkSection

SLOPE, GROUP = 0.2, 16  # of leaky ReLUs; channels of a group


def build(config: ConfigDict, spec: Spec) -> Sampler:
    options = Options.of(config)
    return images.sampler(lambda shape: Generator(options, shape), options, spec)


def critic(config: ConfigDict, spec: Spec) -> Critic:
    options = CriticOptions.of(config)
    return images.judge(Features(options), options, spec)


class Grouped(nn.Module):
    """A 3x3 convolution within groups of 16 channels: (n, height, width, channels) -> the same shape."""

    kernel_init: nn.initializers.Initializer
    config: NetworkSection

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels, dtype = x.shape[-1], self.config.param_dtype
        group = math.gcd(GROUP, channels)
        kernel = self.param("kernel", self.kernel_init, (3, 3, group, channels), dtype).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), dtype).astype(x.dtype)
        over = lambda x, kernel, groups: lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )
        groups = channels // group
        # On CPU XLA's own gradient of groups is 15 to 30 times slower; but many of them take minutes to compile.
        if jax.default_backend() == "cpu" and groups <= 8:
            parts = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
            y = jnp.concatenate([over(*part, 1) for part in parts], axis=-1)
        else:
            y = over(x, kernel, groups)
        return y + bias[None, None, None, :]


class Block(nn.Module):
    """x + conv(leaky(conv(leaky(conv(x))))), the last kernel 0 and the others times blocks^(-1/4) (Zhang et al. 2019).

    `blocks`, of the whole network, keeps the size of a step of all of them together from growing with their number.
    """

    blocks: int
    config: NetworkSection

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels, gain = x.shape[-1], 2 / (1 + SLOPE**2)
        init = nn.initializers.variance_scaling(gain * self.blocks**-0.5, "fan_in", "normal")
        y = nn.leaky_relu(images.conv(self.config, 2 * channels, 1, kernel_init=init)(x), SLOPE)
        y = nn.leaky_relu(Grouped(init, self.config)(y), SLOPE)
        zeros = nn.initializers.zeros
        return x + images.conv(self.config, channels, 1, kernel_init=zeros, use_bias=False)(y)


def linear(config: NetworkSection, channels: int, x: Array) -> Array:
    """A 1x1 convolution where the number of channels changes."""
    same = x.shape[-1] == channels
    return x if same else images.conv(config, channels, 1, kernel_init=unit_variance, use_bias=False)(x)


def resized(x: Array, height: int, width: int) -> Array:
    return jax.image.resize(x, (len(x), height, width, x.shape[-1]), "bilinear")


class Generator(nn.Module):
    """A learned picture, its channels times a linear map of z, then from resolution to resolution."""

    config: NetworkSection
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        found = images.scales(self.shape, self.config.width)[::-1]
        basis = self.param("basis", nn.initializers.normal(1.0), found[0], self.config.param_dtype).astype(z.dtype)
        options = {"use_bias": False, "kernel_init": unit_variance} | images.dtypes(self.config)
        x = basis[None] * nn.Dense(found[0][-1], **options)(z)[:, None, None, :]
        for level, (height, width, channels) in enumerate(found):
            if level:
                x = resized(linear(self.config, channels, x), height, width)
            for _ in range(self.config.layers):
                x = Block(len(found) * self.config.layers, self.config)(x)
        return images.conv(self.config, self.shape[-1], 1, kernel_init=unit_variance)(x)


class Features(nn.Module):
    """Images (n, height, width, channels) -> weighted sums over the pixels of the coarsest resolution (n, channels)."""

    config: NetworkSection

    @nn.compact
    def __call__(self, x: Array) -> Array:
        found = images.scales(x.shape[1:], self.config.width)
        for level, (height, width, channels) in enumerate(found):
            x = linear(self.config, channels, resized(x, height, width) if level else x)
            for _ in range(self.config.layers):
                x = Block(len(found) * self.config.layers, self.config)(x)
        init = nn.initializers.normal((height * width) ** -0.5)
        basis = self.param("basis", init, x.shape[1:], self.config.param_dtype).astype(x.dtype)
        return jnp.sum(x * basis[None], axis=(1, 2))
