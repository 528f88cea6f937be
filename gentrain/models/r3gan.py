"""The residual networks of R3GAN (Huang et al. 2024): no normalisation; for relativistic losses with R1 and R2.

Blocks 1x1 - grouped 3x3 - 1x1 of twice the channels, leaky ReLUs, bilinear resampling, fix-up initialisation. As many
blocks a resolution as `layers`. The images end in a tanh, which the original has not.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.models import convolutions, images
from gentrain.models.base import Critic, Sampler
from gentrain.models.images import Pixels
from gentrain.models.layers import unit_variance
from gentrain.models.r3gan_options import CriticOptions, Options
from gentrain.options.sections import NetworkSection

SLOPE = 0.2  # of leaky ReLUs
GROUP = 16  # channels of a group


def build(config: ConfigDict, spec: Spec) -> Sampler:
    options = Options.of(config)
    return images.sampler(lambda shape: Generator(options, shape), options, spec)


def critic(config: ConfigDict, spec: Spec) -> Critic:
    options = CriticOptions.of(config)
    return images.judge(Features(options), options, spec)


class Grouped(nn.Module):
    """A 3x3 convolution within groups of 16 channels."""

    kernel_init: nn.initializers.Initializer
    config: NetworkSection

    @nn.compact
    def __call__(self, x: Pixels) -> Pixels:
        channels, dtype = x.shape[-1], self.config.param_dtype
        group = math.gcd(GROUP, channels)
        kernel = self.param("kernel", self.kernel_init, (3, 3, group, channels), dtype).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), dtype).astype(x.dtype)
        return convolutions.grouped(x, kernel) + bias[None, None, None, :]


class Block(nn.Module):
    """x + conv(leaky(conv(leaky(conv(x))))), the last kernel 0 and the others times blocks^(-1/4) (Zhang et al. 2019).

    `blocks`, of the whole network, keeps the size of a step of all of them together from growing with their number.
    """

    blocks: int
    config: NetworkSection

    @nn.compact
    def __call__(self, x: Pixels) -> Pixels:
        channels, gain = x.shape[-1], 2 / (1 + SLOPE**2)
        init = nn.initializers.variance_scaling(gain * self.blocks**-0.5, "fan_in", "normal")
        y = nn.leaky_relu(images.conv(self.config, 2 * channels, 1, kernel_init=init)(x), SLOPE)
        y = nn.leaky_relu(Grouped(init, self.config)(y), SLOPE)
        zeros = nn.initializers.zeros
        return x + images.conv(self.config, channels, 1, kernel_init=zeros, use_bias=False)(y)


def change_channels(config: NetworkSection, channels: int, x: Pixels) -> Pixels:
    """A 1x1 convolution where the number of channels changes."""
    if x.shape[-1] == channels:
        return x
    return images.conv(config, channels, 1, kernel_init=unit_variance, use_bias=False)(x)


def resize(x: Pixels, height: int, width: int) -> Pixels:
    """Bilinear resampling."""
    return jax.image.resize(x, (len(x), height, width, x.shape[-1]), "bilinear")


class Generator(nn.Module):
    """A learned picture, its channels times a linear map of z, then from resolution to resolution.

    shape: (height, width, channels) of an image.
    """

    config: NetworkSection
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Float[Array, "n numbers"]) -> Pixels:
        scales = images.scales(self.shape, self.config.width)[::-1]
        coarsest = scales[0]
        basis = self.param("basis", nn.initializers.normal(1.0), coarsest, self.config.param_dtype).astype(z.dtype)
        options = {"use_bias": False, "kernel_init": unit_variance} | images.dtypes(self.config)
        x = basis[None] * nn.Dense(coarsest[-1], **options)(z)[:, None, None, :]
        for level, (height, width, channels) in enumerate(scales):
            if level:
                x = resize(change_channels(self.config, channels, x), height, width)
            for _ in range(self.config.layers):
                x = Block(len(scales) * self.config.layers, self.config)(x)
        return images.conv(self.config, self.shape[-1], 1, kernel_init=unit_variance)(x)


class Features(nn.Module):
    """Weighted sums over the pixels of the coarsest resolution."""

    config: NetworkSection

    @nn.compact
    def __call__(self, x: Pixels) -> Float[Array, "n features"]:
        scales = images.scales(x.shape[1:], self.config.width)
        for level, (height, width, channels) in enumerate(scales):
            x = change_channels(self.config, channels, resize(x, height, width) if level else x)
            for _ in range(self.config.layers):
                x = Block(len(scales) * self.config.layers, self.config)(x)
        init = nn.initializers.normal((height * width) ** -0.5)
        basis = self.param("basis", init, x.shape[1:], self.config.param_dtype).astype(x.dtype)
        return jnp.sum(x * basis[None], axis=(1, 2))
