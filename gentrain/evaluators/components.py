"""What the components of a mixture stand for: their weights, and a picture of each mean."""

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from scipy.special import softmax

from gentrain.datasets.build import Data
from gentrain.datasets.spec import Images, ImageSpec
from gentrain.evaluators.base import Evaluator
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {"components/used": Metric("components", None, "exp of the entropy of the mixture's weights")}


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """components/used, and where the data are pictures the mean picture of each component, the heaviest first."""
    spec = data.spec

    def evaluate(params, key):
        weights = softmax(np.asarray(params["generator"]["weights"], np.float64))
        used = {"components/used": float(np.exp(-np.sum(weights * np.log(np.maximum(weights, 1e-300)))))}
        if not isinstance(spec, ImageSpec):
            return used
        laws = softmax(np.asarray(params["generator"]["table"], np.float64), axis=-1)[np.argsort(-weights)]
        means = laws @ np.arange(spec.vocab) * (255 / (spec.vocab - 1))
        return used | {"components": Images(np.round(means).astype(np.uint8).reshape(-1, *spec.shape))}

    return evaluate
