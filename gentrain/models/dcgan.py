"""Convolutions that double the resolution, and convolutions that halve it (Radford et al. 2015).

Group normalisation is where DCGAN's generator has batch normalisation: an image is then a function of its own key, so
microbatches, shards and resumed runs see the same one. The critic has none, as slope penalties and bounds on its
kernels ask for. A 3x3 convolution stands at full resolution in both (Miyato et al. 2018, table 3), and kernels are
drawn by fan-in.
"""

import flax.linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.models import convolutions, images
from gentrain.models.base import Critic, Sampler
from gentrain.models.dcgan_options import CriticOptions, Options
from gentrain.models.images import Pixels
from gentrain.options.sections import NetworkSection


def build(config: ConfigDict, spec: Spec) -> Sampler:
    options = Options.of(config)
    return images.sampler(lambda shape: Generator(options, shape), options, spec)


def critic(config: ConfigDict, spec: Spec) -> Critic:
    options = CriticOptions.of(config)
    return images.judge(Features(options), options, spec)


class Double(nn.Module):
    """A transposed convolution of 4x4, stride 2, which doubles height and width."""

    features: int
    config: NetworkSection

    @nn.compact
    def __call__(self, x: Pixels) -> Float[Array, "n _ _ features"]:
        channels = x.shape[-1]
        fan_in = 4 * channels  # an output sees 2x2 of the taps
        init = nn.initializers.normal((2 / fan_in) ** 0.5)
        kernel = self.param("kernel", init, (4, 4, channels, self.features), self.config.param_dtype)
        return convolutions.double(x, kernel.astype(x.dtype))


class Generator(nn.Module):
    """From the coarsest resolution to the finest; shape: (height, width, channels) of an image."""

    config: NetworkSection
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Float[Array, "n numbers"]) -> Pixels:
        *finer, coarsest = images.scales(self.shape, self.config.width)
        x = nn.relu(images.norm(self.config, images.start(self.config, z, coarsest)))
        for _, _, channels in reversed(finer):
            x = nn.relu(images.norm(self.config, Double(channels, self.config)(x)))
        return images.conv(self.config, self.shape[-1])(x)


class Features(nn.Module):
    """All numbers of the coarsest resolution."""

    config: NetworkSection

    @nn.compact
    def __call__(self, x: Pixels) -> Float[Array, "n features"]:
        for level, (_, _, channels) in enumerate(images.scales(x.shape[1:], self.config.width)):
            halving = {"conv_general_dilated": convolutions.as_convolution(convolutions.halve)} if level else {}
            x = nn.leaky_relu(images.conv(self.config, channels, 4 if level else 3, **halving)(x), 0.2)
        return x.reshape(len(x), -1)
