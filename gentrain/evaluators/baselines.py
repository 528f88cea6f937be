"""What a model must beat, learned once from train: n-grams for text, independent positions for images."""

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain.datasets.build import Data
from gentrain.datasets.spec import ImageSpec
from gentrain.evaluators import ngrams
from gentrain.evaluators.base import Evaluator
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {
    "baseline/ngram_<order>": Metric("nats/token", None, "a Witten-Bell n-gram learned on train"),
    "baseline/best_ngram": Metric("nats/token", None, "the best of the n-grams", level=True),
    "baseline/independent_pixels": Metric(
        "nats/image", None, "positions drawn on their own, by their frequencies", level=True
    ),
}


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """nats/token of n-grams up to order evaluate.baselines.ngram_order, or nats/image of independent pixels, on split
    evaluate.split. They are worked out at the first call and are the same at every step."""
    order = config.evaluate.baselines.ngram_order
    baselines: dict[str, float] = {}

    def measure() -> dict[str, float]:
        # Cut as they are for a model, which sees nothing of what stands before a piece either.
        train, held_out = data.split("train").pieces, data.split(config.evaluate.split).pieces
        if isinstance(data.spec, ImageSpec):
            nats = independent_nll(train[0], held_out[0], data.spec.vocab, data.spec.length)
            return {"baseline/independent_pixels": nats}
        by_order = ngrams.witten_bell(train, held_out, data.spec.vocab, order)
        nlls = [float(-np.mean(np.log(probabilities))) for probabilities in by_order]
        values = {f"baseline/ngram_{order}": nll for order, nll in enumerate(nlls, 1)}
        return values | ({"baseline/best_ngram": min(nlls)} if nlls else {})

    def evaluate(params, key):
        if not baselines:
            baselines.update(measure())
        return dict(baselines)

    return evaluate


def independent_nll(train: np.ndarray, held_out: np.ndarray, vocab: int, length: int) -> float:
    """Nats an example of held_out, were every position drawn on its own by its frequencies in train (plus 1/2 each).

    train, held_out: tokens of examples of that length, one after the other.
    """
    train, held_out = (np.asarray(tokens).reshape(-1, length) for tokens in (train, held_out))
    offset = np.arange(length) * vocab  # of a position's counts
    counts = np.bincount((train + offset).ravel(), minlength=length * vocab) + 0.5
    nats = -np.log(counts / (len(train) + 0.5 * vocab))
    return float(nats[held_out + offset].sum(axis=1).mean())
