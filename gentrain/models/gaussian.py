"""One isotropic Gaussian: too small a model for almost any data, which is what makes divergences differ."""

import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain.data import Spec
from gentrain.errors import ConfigError
from gentrain.models import DensityModel


def build(config: ConfigDict, spec: Spec) -> DensityModel:
    """Q = N(mean, scale^2 I), log Q(x) = -|x - mean|^2 / (2 scale^2) - d log(scale sqrt(2 pi)).

    Parameters: mean (d,) and log_scale (). Starts at mean model.mean in every coordinate, with standard deviation
    model.scale: where a divergence has two minima, the start decides between them.
    """
    if spec.kind != "points":
        raise ConfigError(f"model.name='gaussian' is for points, and this data is {spec.kind}")

    def init(key):
        return {"mean": jnp.full((spec.length,), config.mean), "log_scale": jnp.log(jnp.asarray(config.scale))}

    def log_prob(params, points):
        distance = jnp.sum(jnp.square(points - params["mean"][None, :]), axis=-1)
        normaliser = spec.length * (params["log_scale"] + 0.5 * math.log(2 * math.pi))
        return -0.5 * distance * jnp.exp(-2 * params["log_scale"]) - normaliser

    def sample(params, keys, context=None):
        noise = jax.vmap(lambda key: jax.random.normal(key, (spec.length,)))(keys)
        return params["mean"][None, :] + jnp.exp(params["log_scale"]) * noise

    return DensityModel(init, sample, log_prob)
