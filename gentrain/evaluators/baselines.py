"""What a model must beat, learned once from train: n-grams for text, independent positions for images."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets.build import Data
from gentrain.datasets.spec import ImageSpec
from gentrain.evaluators import ngrams
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {
    "baseline/ngram_<order>": Metric("nats/token", None, "a Witten-Bell n-gram learned on train"),
    "baseline/best_ngram": Metric("nats/token", None, "the best of the n-grams", level=True),
    "baseline/independent_pixels": Metric(
        "nats/image", None, "positions drawn on their own, by their frequencies", level=True
    ),
}


def positions(train: np.ndarray, valid: np.ndarray, vocab: int, length: int) -> float:
    """Nats per example of valid, if every position were drawn on its own by its frequencies in train (plus 1/2 each).

    train, valid: tokens of examples of that length, one after the other.
    """
    train, valid = (np.asarray(tokens).reshape(-1, length) for tokens in (train, valid))
    position = np.arange(length) * vocab
    counts = np.bincount((train + position).ravel(), minlength=length * vocab) + 0.5
    nats = -np.log(counts / (len(train) + 0.5 * vocab))
    return float(nats[valid + position].sum(axis=1).mean())


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Any) -> Callable[..., dict[str, float]]:
    """An evaluator that gives nats/token of n-grams up to evaluate.baselines.ngram_order, or nats/image of independent
    pixels, on split evaluate.split; worked out at the first call."""
    order = config.evaluate.baselines.ngram_order
    baselines: dict[str, float] = {}

    def measure() -> dict[str, float]:
        train, held_out = data.split("train").documents, data.split(config.evaluate.split).documents
        if isinstance(data.spec, ImageSpec):
            return {"baseline/independent_pixels": positions(train[0], held_out[0], data.spec.vocab, data.spec.length)}
        probabilities = ngrams.witten_bell(train, held_out, data.spec.vocab, order)
        orders = [float(-np.mean(np.log(p))) for p in probabilities]
        named = {f"baseline/ngram_{order}": nats for order, nats in enumerate(orders, 1)}
        return named | ({"baseline/best_ngram": min(orders)} if orders else {})

    def evaluate(params: Any, key: Any) -> dict[str, float]:
        if not baselines:
            baselines.update(measure())
        return dict(baselines)

    return evaluate
