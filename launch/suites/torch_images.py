"""Image GANs in torch, the networks of models.resnet, models.dcgan and models.r3gan, channels last."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from launch.suites.works import ImageShape, Prepared, Work


def prepare(work: Work) -> Prepared:
    """A step of the critic and one of the generator, AdamW with clipped norms, as gentrain's."""
    shape = work.shape
    generator, critic = (make(shape).to(memory_format=torch.channels_last) for make in NETWORKS[shape.family])
    real = torch.rand(shape.batch, 1, shape.side, shape.side).to(memory_format=torch.channels_last) * 2 - 1
    paired = work.options["adversarial.generator_loss"] == "relativistic"
    penalty = work.options.get("adversarial.r1", 0.0)
    move_critic, move_generator = mover(critic), mover(generator)

    def do() -> None:
        critic.requires_grad_(True)
        with torch.no_grad():
            fake = generator(torch.randn(shape.batch, shape.latent))
        move_critic(relativistic(critic, real, fake, penalty) if paired else classify(critic, real, fake))
        critic.requires_grad_(False)
        logits = critic(generator(torch.randn(shape.batch, shape.latent)))
        move_generator(functional.softplus(critic(real) - logits if paired else -logits).mean())

    counts = [sum(p.numel() for p in network.parameters()) for network in (generator, critic)]
    return Prepared(do, {"parameters": sum(counts)})


def mover(network: nn.Module) -> Callable[[Any], None]:
    """Takes a step of AdamW down a loss."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def move(loss: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return move


def classify(critic: nn.Module, real: Any, fake: Any) -> Any:
    """The cross-entropy of a critic that tells data from samples."""
    return (functional.softplus(-critic(real)).mean() + functional.softplus(critic(fake)).mean()) / 2


def relativistic(critic: nn.Module, real: Any, fake: Any, penalty: float) -> Any:
    """softplus of the difference within each pair, and both squared slopes."""
    shown = real.detach().requires_grad_(True), fake.requires_grad_(True)
    logits = [critic(images) for images in shown]
    slopes = torch.autograd.grad([each.sum() for each in logits], shown, create_graph=True)
    squares = sum(slope.square().sum(dim=(1, 2, 3)).mean() for slope in slopes)
    return functional.softplus(logits[1] - logits[0]).mean() + penalty / 2 * squares


def conv(inputs: int, outputs: int, size: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=(size - 1) // 2, **options)


class Start(nn.Module):
    """A linear map of noise to the coarsest resolution."""

    def __init__(self, shape: ImageShape):
        super().__init__()
        self.size = shape.scales[-1][1], shape.scales[-1][0], shape.scales[-1][0]
        self.map = nn.Linear(shape.latent, self.size[0] * self.size[1] * self.size[2])

    def forward(self, z):
        return self.map(z).reshape(-1, *self.size).contiguous(memory_format=torch.channels_last)


class Up(nn.Module):
    """A residual block of SN-GAN's generator."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(4, inputs, 1e-6), nn.GroupNorm(4, outputs, 1e-6)])
        self.first, self.second = (conv(channels, outputs, 3, bias=False) for channels in (inputs, outputs))
        self.shortcut = conv(inputs, outputs, 1, bias=False)

    def forward(self, x):
        y = self.first(functional.interpolate(self.norms[0](x).relu(), scale_factor=2.0))
        y = self.second(self.norms[1](y).relu())
        return functional.interpolate(self.shortcut(x), scale_factor=2.0) + y


class Down(nn.Module):
    """A residual block of SN-GAN's critic."""

    def __init__(self, inputs: int, outputs: int, halve: bool):
        super().__init__()
        self.first, self.second = conv(inputs, outputs, 3), conv(outputs, outputs, 3)
        self.shortcut, self.halve, self.reads_image = conv(inputs, outputs, 1), halve, inputs == 1

    def forward(self, x):
        y = self.second(self.first(x if self.reads_image else x.relu()).relu())
        if self.halve:
            x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
        return self.shortcut(x) + y


class SumOfPixels(nn.Module):
    def forward(self, x):
        return x.relu().sum(dim=(2, 3))


class Block(nn.Module):
    """x + conv(leaky(grouped conv(leaky(conv(x)))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.wide, self.narrow = conv(channels, 2 * channels, 1), conv(2 * channels, channels, 1, bias=False)
        self.grouped = conv(2 * channels, 2 * channels, 3, groups=max(1, 2 * channels // 16))

    def forward(self, x):
        y = functional.leaky_relu(self.grouped(functional.leaky_relu(self.wide(x), 0.2)), 0.2)
        return x + self.narrow(y)


class Resize(nn.Module):
    """Bilinear resampling by a factor of two, down with the wider kernel."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return functional.interpolate(x, scale_factor=self.factor, mode="bilinear", antialias=self.factor < 1)


class Picture(nn.Module):
    """A learned picture times a linear map of noise."""

    def __init__(self, shape: ImageShape):
        super().__init__()
        side, channels = shape.scales[-1]
        self.basis, self.map = nn.Parameter(torch.randn(channels, side, side)), nn.Linear(shape.latent, channels, False)

    def forward(self, z):
        return (self.basis * self.map(z)[:, :, None, None]).contiguous(memory_format=torch.channels_last)


class WeightedSums(nn.Module):
    """Weighted sums over pixels."""

    def __init__(self, side: int, channels: int):
        super().__init__()
        self.basis = nn.Parameter(torch.randn(channels, side, side) / side)

    def forward(self, x):
        return (x * self.basis).sum(dim=(2, 3))


def resnet_generator(shape: ImageShape) -> nn.Module:
    channels = [number for _, number in reversed(shape.scales)]
    ups = [Up(*pair) for pair in pairwise(channels)]
    return nn.Sequential(Start(shape), *ups, nn.GroupNorm(4, shape.width, 1e-6), nn.ReLU(),
                         conv(shape.width, 1, 3), nn.Tanh())  # fmt: skip


def resnet_critic(shape: ImageShape) -> nn.Module:
    channels = [1, *(number for _, number in shape.scales)]
    downs = [Down(*pair, halve=pair[1] < channels[-1]) for pair in pairwise(channels)]
    return nn.Sequential(*downs, SumOfPixels(), nn.Linear(channels[-1], 1))


def dcgan_generator(shape: ImageShape) -> nn.Module:
    channels, layers = [number for _, number in reversed(shape.scales)], []
    for number, following in zip(channels, [*channels[1:], None], strict=True):
        layers += [nn.GroupNorm(4, number, 1e-6), nn.ReLU()]
        if following:
            layers.append(nn.ConvTranspose2d(number, following, 4, 2, 1, bias=False))
    return nn.Sequential(Start(shape), *layers, conv(shape.width, 1, 3), nn.Tanh())


def dcgan_critic(shape: ImageShape) -> nn.Module:
    channels = [1, *(number for _, number in shape.scales)]
    layers = [conv(1, channels[1], 3), nn.LeakyReLU(0.2)]
    for pair in pairwise(channels[1:]):
        layers += [conv(*pair, 4, stride=2), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(shape.scales[-1][0] ** 2 * channels[-1], 1))


def r3gan_generator(shape: ImageShape) -> nn.Module:
    channels, layers = [number for _, number in reversed(shape.scales)], [Block(shape.scales[-1][1])]
    for pair in pairwise(channels):
        layers += [conv(*pair, 1, bias=False), Resize(2.0), Block(pair[1])]
    return nn.Sequential(Picture(shape), *layers, conv(shape.width, 1, 1), nn.Tanh())


def r3gan_critic(shape: ImageShape) -> nn.Module:
    channels = [1, *(number for _, number in shape.scales)]
    layers = [conv(1, channels[1], 1, bias=False), Block(channels[1])]
    for pair in pairwise(channels[1:]):
        layers += [Resize(0.5), conv(*pair, 1, bias=False), Block(pair[1])]
    return nn.Sequential(*layers, WeightedSums(*shape.scales[-1]), nn.Linear(channels[-1], 1))


NETWORKS = {
    "resnet": (resnet_generator, resnet_critic),
    "dcgan": (dcgan_generator, dcgan_critic),
    "r3gan": (r3gan_generator, r3gan_critic),
}
