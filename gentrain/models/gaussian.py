"""One isotropic Gaussian: too small a model for almost any data, which is what makes divergences differ."""

import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain.datasets.spec import PointSpec, Spec
from gentrain.errors import ConfigError
from gentrain.models.base import DensityModel
from gentrain.models.gaussian_options import Options


def build(config: ConfigDict, spec: Spec) -> DensityModel:
    """Q = N(mean, scale^2 I), log Q(x) = -|x - mean|^2 / (2 scale^2) - d log(scale sqrt(2 pi)).

    Parameters: mean (d,) and log_scale (). Starts at mean options.mean in every coordinate, with standard
    deviation options.scale: where a divergence has two minima, the start decides between them.
    """
    if not isinstance(spec, PointSpec):
        raise ConfigError(f"model.name='gaussian' is for points, and the data are {spec.kind}")
    options = Options.of(config)

    def init(key):
        return {"mean": jnp.full((spec.length,), options.mean), "log_scale": jnp.log(jnp.asarray(options.scale))}

    def log_prob(params, points):
        distance = jnp.sum(jnp.square(points - params["mean"][None, :]), axis=-1)
        normaliser = spec.length * (params["log_scale"] + 0.5 * math.log(2 * math.pi))
        return -0.5 * distance * jnp.exp(-2 * params["log_scale"]) - normaliser

    def sample(params, keys, context=None):
        noise = jax.vmap(lambda key: jax.random.normal(key, (spec.length,)))(keys)
        return params["mean"][None, :] + jnp.exp(params["log_scale"]) * noise

    return DensityModel(init, sample, log_prob)
