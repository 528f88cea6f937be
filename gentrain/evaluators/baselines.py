"""What a model must beat, learned once from train: n-grams for text, independent positions for images."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Documents = tuple[np.ndarray, np.ndarray]  # tokens, offsets: document i is tokens[offsets[i]:offsets[i+1]]


def witten_bell(train: Documents, valid: Documents, vocab: int, order: int) -> float:
    """Nats per token of valid under the interpolated Witten-Bell n-gram of that order, learned on train.

    p_n(w|h) = (c(h,w) + T(h) p_{n-1}(w|h')) / (c(h) + T(h)), p_0 = 1/vocab, where c counts in train, T(h) is the number
    of different tokens that followed h, and h' is h without its oldest token. Contexts never cross a document's start:
    a beginning-of-sequence symbol stands before it. (Witten & Bell 1991.)
    """
    return list(witten_bell_orders(train, valid, vocab, order))[-1]


def witten_bell_orders(train: Documents, valid: Documents, vocab: int, order: int) -> Iterator[float]:
    """witten_bell of orders 1, 2, ..., order, each made from the last."""
    tokens = np.concatenate([train[0], valid[0]]).astype(np.int64)
    position = np.concatenate([_positions(train), _positions(valid)])
    split = len(train[0])
    context = np.zeros(len(tokens), np.int64)  # numbers the contexts of the current length that occur
    p = np.full(len(tokens) - split, 1 / vocab)
    for length in range(order):
        if length:
            oldest = np.full_like(tokens, vocab)
            oldest[length:] = tokens[:-length]
            oldest[position < length] = vocab
            # Ranks instead of base-(vocab+1) numbers, which would overflow for long contexts.
            context = np.unique(context * (vocab + 1) + oldest, return_inverse=True)[1]
        grams = context * vocab + tokens
        learned, asked = np.sort(grams[:split]), grams[split:]
        first = np.flatnonzero(np.diff(learned, prepend=-1))
        kinds = np.bincount(learned[first] // vocab, minlength=context.max() + 1)
        totals = np.bincount(context[:split], minlength=len(kinds))
        counts = np.diff(np.append(first, split))
        at = np.minimum(np.searchsorted(learned[first], asked), len(first) - 1)
        count = np.where(learned[first][at] == asked, counts[at], 0)
        total, kind = totals[context[split:]], kinds[context[split:]]
        p = np.where(total > 0, (count + kind * p) / np.maximum(total + kind, 1), p)
        yield float(-np.mean(np.log(p)))


def _positions(documents: Documents) -> np.ndarray:
    """The place of each token in its document."""
    tokens, offsets = documents
    return np.arange(len(tokens)) - np.repeat(offsets[:-1], np.diff(offsets))


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
        orders = list(witten_bell_orders(train, held_out, data.spec.vocab, config.evaluate.ngram_order))
        named = {f"baseline/ngram_{order}": nats for order, nats in enumerate(orders, 1)}
        return named | ({"baseline/best_ngram": min(orders)} if orders else {})

    def evaluate(params: Any, key: Any) -> dict[str, float]:
        del params, key
        if not found:
            found.update(measure())
        return dict(found)

    return evaluate
