"""What a model must beat, learned once from train: n-grams for text, independent positions for images."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gentrain import ngrams


def positions(train: np.ndarray, valid: np.ndarray, vocab: int, length: int) -> float:
    """Nats per example of valid, if every position were drawn on its own by its frequencies in train (plus 1/2 each).

    train, valid: tokens of examples of that length, one after the other.
    """
    train, valid = (np.asarray(tokens).reshape(-1, length) for tokens in (train, valid))
    place = np.arange(length) * vocab
    counts = np.bincount((train + place).ravel(), minlength=length * vocab) + 0.5
    nats = -np.log(counts / (len(train) + 0.5 * vocab))
    return float(nats[valid + place].sum(axis=1).mean())


def build(config: Any, model: Any, data: Any, mesh: Any) -> Callable[..., dict[str, float]]:
    """An evaluator that gives nats/token of n-grams up to config.evaluate.ngram_order, or nats/image of independent
    pixels.

    The numbers are those of split config.evaluate.split, worked out at the first call.
    """
    del model, mesh
    found: dict[str, float] = {}

    def measure() -> dict[str, float]:
        train, held_out = data.split("train").documents, data.split(config.evaluate.split).documents
        if data.spec.kind == "image":
            return {"baseline/independent_pixels": positions(train[0], held_out[0], data.spec.vocab, data.spec.length)}
        found = ngrams.witten_bell(train, held_out, data.spec.vocab, config.evaluate.ngram_order)
        orders = [float(-np.mean(np.log(p))) for p in found]
        named = {f"baseline/ngram_{order}": nats for order, nats in enumerate(orders, 1)}
        return named | ({"baseline/best_ngram": min(orders)} if orders else {})

    def evaluate(params: Any, key: Any) -> dict[str, float]:
        del params, key
        if not found:
            found.update(measure())
        return dict(found)

    return evaluate
