"""Does a generator of points find every mode, and stay on them? For mixtures of Gaussians that are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gentrain import divergences, models, sharding, worlds
from gentrain.data import Data
from gentrain.errors import ConfigError
from gentrain.metrics import Images
from gentrain.plots import scatter


def build(config: ConfigDict, model: models.Sampler | models.DensityModel, data: Data, mesh):
    """From evaluate.examples samples: modes/captured, how many components have a sample within 3 standard deviations;
    modes/quality, the share of samples within 3 of the nearest; modes/reverse_kl, KL of the histogram of nearest
    components to their weights, nats; modes/nll_oracle, -E_Q log P, nats; and a picture of them.

    The protocol of VEEGAN (Srivastava et al., 2017), with 2,500 samples there. Raises ConfigError where the world is
    not a mixture of Gaussians in the plane.
    """
    world = worlds.of(config, "evaluator 'modes'")
    if not isinstance(world, worlds.GaussianMixture) or world.dimension != 2:
        raise ConfigError(f"evaluator 'modes' is for mixtures in the plane, as world:ring; not {config.data.name}")
    whitening = np.linalg.inv(np.linalg.cholesky(world.covariances))

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def draw(params, key):
        rows = sharding.spread(jnp.arange(sharding.whole(mesh, config.evaluate.examples)), mesh)
        return model.sample(params, models.example_keys(key, rows))[: config.evaluate.examples]

    def evaluate(params, key):
        points = np.asarray(draw(params["generator"], key), np.float64)
        apart = np.einsum("kij,nkj->nki", whitening, points[:, None] - world.means[None])
        distance = np.sqrt(np.square(apart).sum(-1))  # (n, k), in standard deviations
        nearest, good = distance.argmin(1), distance.min(1) < 3
        counts = np.bincount(nearest, minlength=len(world.weights))
        return {
            "modes/captured": float(len(np.unique(nearest[good]))),
            "modes/quality": float(good.mean()),
            "modes/reverse_kl": float(divergences.kl(counts / counts.sum(), world.weights)),
            "modes/nll_oracle": float(-world.log_prob(points).mean()),
            "samples": Images(scatter(points, world.means)[None]),
        }

    return evaluate
