"""Does a generator of points find every mode, and stay on them? For mixtures of Gaussians that are known."""

import matplotlib
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import divergences, worlds
from gentrain.datasets.build import Data
from gentrain.datasets.spec import Images
from gentrain.errors import ConfigError
from gentrain.evaluators.base import Evaluator, make_draw, sample_rows
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

matplotlib.use("Agg")
from matplotlib import pyplot

METRICS = {
    "modes/captured": Metric("modes", "higher", "components with a sample within 3 standard deviations"),
    "modes/quality": Metric("share", "higher", "samples within 3 standard deviations of the nearest component"),
    "modes/reverse_kl": Metric("nats", "lower", "KL of the histogram of nearest components to their weights"),
    "modes/nll_oracle": Metric("nats", None, "-E_Q log P: low for likely samples, however alike they are"),
}


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """From evaluate.examples samples the numbers of METRICS, and a picture of the samples.

    The protocol of VEEGAN (Srivastava et al., 2017), with 2,500 samples there. Raises ConfigError where the world is
    not a mixture of Gaussians in the plane.
    """
    world = worlds.of(config, "evaluator 'modes'")
    if not isinstance(world, worlds.GaussianMixture) or world.dimension != 2:
        raise ConfigError(f"evaluator 'modes' is for mixtures in the plane, as world:ring; not {config.data.name}")
    whitening = np.linalg.inv(np.linalg.cholesky(world.covariances))
    count = config.evaluate.examples
    draw, rows = make_draw(objective.model, mesh, world.dimension), sample_rows(mesh, count)

    def evaluate(params, key):
        points = np.asarray(draw(params["generator"], key, rows), np.float64)[:count]
        scaled = np.einsum("kij,nkj->nki", whitening, points[:, None] - world.means[None])
        distance = np.sqrt(np.square(scaled).sum(-1))  # (n, k), in standard deviations
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


def scatter(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Points of the plane over the places where they should be: (height, width, 3) uint8."""
    figure, axes = pyplot.subplots(figsize=(4, 4), dpi=100)
    reach = 1.4 * (np.abs(means).max() or np.abs(points).max())  # one Gaussian lies at 0
    axes.plot(*means.T, "+", color="C3", ms=12, mew=1)
    axes.plot(*points.T, ".", color="C0", ms=2, alpha=0.4)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    figure.tight_layout()
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[:, :, :3].copy()  # type: ignore[attr-defined]
    pyplot.close(figure)
    return image
