"""Layers of ReLUs: a generator of points from noise, and a critic of points or of whole sequences."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from gentrain.datasets.spec import PointSpec, Spec
from gentrain.errors import ConfigError
from gentrain.models.base import Critic, Params, Sampler
from gentrain.models.layers import keep_mask
from gentrain.models.mlp_options import CriticOptions, Options


def build(config: ConfigDict, spec: Spec) -> Sampler:
    """x = W relu(... relu(W z + b)) + b, z ~ N(0, I) of model.mlp.latent numbers; its density is not known."""
    if not isinstance(spec, PointSpec):
        raise ConfigError(f"model.name='mlp' generates points, and the data are {spec.kind}")
    options = Options.of(config)
    sizes = [options.latent, *[options.width] * options.layers, spec.length]

    def init(key):
        return draw_layers(key, sizes, 1.0)

    def sample(params, keys, context=None):
        return forward(params, jax.vmap(lambda key: jax.random.normal(key, (options.latent,)))(keys))

    return Sampler(init, sample)


def critic(config: ConfigDict, spec: Spec) -> Critic:
    """One estimate of log P/Q for a whole point, or for a whole sequence by the one-hot code of its tokens."""
    options, points = CriticOptions.of(config), isinstance(spec, PointSpec)
    sizes = [spec.length if points else spec.length * spec.vocab, *[options.width] * options.layers, 1]

    def init(key):
        return draw_layers(key, sizes, 0.0)

    def apply(params, examples, context=None, keys=None):
        if not points:
            weights = examples[..., :-1] if examples.ndim == 3 else jax.nn.one_hot(examples, spec.vocab)
            examples = weights.reshape(len(weights), -1)
        return forward(params, examples, options.dropout, keys)

    return Critic(init, apply)


def draw_layers(key: Array, sizes: list[int], last: float) -> Params:
    """Kernels of std sqrt(2 / fan_in) (He et al., 2015), the last's times `last`; biases of std 1, the last's 0.

    Without the biases every kink would lie on a ray from the origin, which a critic of narrow modes all over the plane
    takes thousands of steps to mend.
    """
    params = {}
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        gain = (2 / inputs) ** 0.5 if number < len(sizes) - 2 else last * inputs**-0.5
        kernel = gain * jax.random.normal(jax.random.fold_in(key, number), (inputs, outputs))
        bias = jax.random.normal(jax.random.fold_in(key, len(sizes) + number), (outputs,))
        params[f"layer_{number}"] = {"kernel": kernel, "bias": bias if number < len(sizes) - 2 else jnp.zeros(outputs)}
    return params


def forward(
    params: Params, x: Float[Array, "n inputs"], dropout: float = 0.0, keys: Array | None = None
) -> Float[Array, "n outputs"]:
    """ReLUs between the layers, and dropout after each of them."""
    for number in range(len(params)):
        x = jax.nn.relu(x) if number else x
        if number and dropout and keys is not None:
            x = x * keep_mask(keys, number, dropout, x.shape[1:], x.dtype)
        x = x @ params[f"layer_{number}"]["kernel"] + params[f"layer_{number}"]["bias"][None, :]
    return x
