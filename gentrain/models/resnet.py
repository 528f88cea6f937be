"""The residual networks of SN-GAN (Miyato et al. 2018), with as many blocks a resolution as `layers`.

Group normalisation is where the generator has batch normalisation, so that an image is a function of its own key. The
bound on the norms of the critic's kernels belongs to the objective.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.models import convolutions, images
from gentrain.models.base import Critic, Sampler
from gentrain.models.images import Pixels
from gentrain.models.layers import unit_variance
from gentrain.models.resnet_options import CriticOptions, Options
from gentrain.options.sections import NetworkSection


def build(config: ConfigDict, spec: Spec) -> Sampler:
    options = Options.of(config)
    return images.sampler(lambda shape: Generator(options, shape), options, spec)


def critic(config: ConfigDict, spec: Spec) -> Critic:
    options = CriticOptions.of(config)
    return images.judge(Features(options), options, spec)


DOUBLED = convolutions.as_convolution(lambda x, kernel: convolutions.double(x, convolutions.widen(kernel)))
HALVED = convolutions.as_convolution(lambda x, kernel: convolutions.halve(x, convolutions.widen(kernel) / 4))


class Up(nn.Module):
    """x' + conv(relu(norm(conv(relu(norm(x))')))), where ' doubles the resolution in the first block at one."""

    channels: int
    double: bool
    config: NetworkSection

    @nn.compact
    def __call__(self, x: Pixels) -> Pixels:
        def conv(size, **options):
            return images.conv(self.config, self.channels, size, use_bias=False, **options)

        options = {"conv_general_dilated": DOUBLED} if self.double else {}  # conv(y')
        y = nn.relu(images.norm(self.config, x))
        y = conv(3, **options)(y)
        y = conv(3)(nn.relu(images.norm(self.config, y)))
        # A 1x1 convolution and a copy commute: the cheaper order.
        shortcut = x if x.shape[-1] == self.channels else conv(1, kernel_init=unit_variance)(x)
        return (repeat(shortcut) if self.double else shortcut) + y


class Down(nn.Module):
    """(x + conv(relu(conv(relu(x)))))', where ' halves the resolution in the last block at one.

    first: the block that reads an image, which has no ReLU before it.
    """

    channels: int
    halve: bool
    first: bool
    config: NetworkSection

    @nn.compact
    def __call__(self, x: Pixels) -> Pixels:
        def conv(size, **options):
            return images.conv(self.config, self.channels, size, **options)

        options = {"conv_general_dilated": HALVED} if self.halve else {}  # conv(y)'
        y = conv(3, kernel_init=unit_variance)(x) if self.first else conv(3)(nn.relu(x))
        y = conv(3, **options)(nn.relu(y))
        shortcut = average(x) if self.halve else x  # a 1x1 convolution and a mean commute
        if x.shape[-1] != self.channels:
            shortcut = conv(1, kernel_init=unit_variance)(shortcut)
        return shortcut + y


def repeat(x: Pixels) -> Pixels:
    """Every pixel as 2x2 pixels."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def average(x: Pixels) -> Pixels:
    """Means of 2x2 pixels."""
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


class Generator(nn.Module):
    """From the coarsest resolution to the finest; shape: (height, width, channels) of an image."""

    config: NetworkSection
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Float[Array, "n numbers"]) -> Pixels:
        *finer, coarsest = images.scales(self.shape, self.config.width)
        x = images.start(self.config, z, coarsest)
        for _, _, channels in reversed(finer):
            for block in range(self.config.layers):
                x = Up(channels, block == 0, self.config)(x)
        return images.conv(self.config, self.shape[-1])(nn.relu(images.norm(self.config, x)))


class Features(nn.Module):
    """Sums over all pixels of the coarsest resolution."""

    config: NetworkSection

    @nn.compact
    def __call__(self, x: Pixels) -> Float[Array, "n features"]:
        scales = images.scales(x.shape[1:], self.config.width)
        for level, (_, _, channels) in enumerate(scales):
            for block in range(self.config.layers):
                halve = block == self.config.layers - 1 and level < len(scales) - 1
                first = level == 0 and block == 0
                x = Down(channels, halve, first, self.config)(x)
        return nn.relu(x).sum(axis=(1, 2))
