"""A small convolutional classifier of pictures: what evaluator 'fidelity' looks at images with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gentrain.datasets.spec import ImageSpec
from gentrain.models.base import Params

FEATURES = 64


class Classifier(NamedTuple):
    """init(key) -> params.

    apply(params, pictures (n, height, width, channels) in [-1, 1]) -> features (n, 64), and logits (n, classes), which
    are linear in the features.
    """

    init: Callable[..., Params]
    apply: Callable[..., Any]


class LeNet(nn.Module):
    """Two 3x3 convolutions of stride 2, a layer of features, a linear layer; ReLUs between (LeCun et al., 1998)."""

    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> tuple[Float[Array, "n features"], Float[Array, "n classes"]]:
        for channels in (32, 64):
            x = nn.relu(nn.Conv(channels, (3, 3), (2, 2))(x))
        features = nn.relu(nn.Dense(FEATURES)(x.reshape(x.shape[0], -1)))
        return features, nn.Dense(self.classes)(features)


def classifier(spec: ImageSpec) -> Classifier:
    """The classifier of images whose contexts are their classes."""
    network = LeNet(spec.context_vocab)

    def init(key: Array) -> Params:
        return network.init(key, jnp.zeros((1, *spec.shape)))["params"]

    def apply(params: Params, pictures: Float[Array, "n h w c"]) -> Any:
        return network.apply({"params": params}, pictures)

    return Classifier(init, apply)
