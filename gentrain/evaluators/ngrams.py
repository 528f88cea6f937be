"""Witten-Bell n-grams: what any model of text must beat, and a rough reference for the law of text. NumPy alone."""

from collections.abc import Iterator

import numpy as np

Documents = tuple[np.ndarray, np.ndarray]  # tokens, offsets: document i is tokens[offsets[i]:offsets[i+1]]


def witten_bell(train: Documents, asked: Documents, vocab: int, order: int) -> Iterator[np.ndarray]:
    """Of orders 1, 2, ..., order, each made from the last: the probability of each token of asked, (tokens,).

    p_n(w|h) = (c(h,w) + T(h) p_{n-1}(w|h')) / (c(h) + T(h)), p_0 = 1/vocab, where c counts in train, T(h) is the number
    of different tokens that followed h, and h' is h without its oldest token. Contexts never cross a document's start:
    a beginning-of-sequence symbol stands before it. (Witten & Bell 1991.)
    """
    for p in _interpolated(train, asked, vocab, order, np.asarray(asked[0], np.int64)[:, None]):
        yield p[:, 0]


def conditionals(train: Documents, asked: Documents, vocab: int, order: int) -> np.ndarray:
    """The Witten-Bell conditional of what follows each prefix: (tokens of asked, vocab), row i before token i is seen."""
    every = np.broadcast_to(np.arange(vocab), (len(asked[0]), vocab))
    *_, last = _interpolated(train, asked, vocab, order, every)
    return last


def _interpolated(
    train: Documents, asked: Documents, vocab: int, order: int, symbols: np.ndarray
) -> Iterator[np.ndarray]:
    """Probabilities of symbols (tokens of asked, k) at the places of those tokens, for one order after the other."""
    tokens = np.concatenate([train[0], asked[0]]).astype(np.int64)
    position = np.concatenate([_positions(train), _positions(asked)])
    split = len(train[0])
    context = np.zeros(len(tokens), np.int64)  # numbers the contexts of the current length that occur
    p = np.full(symbols.shape, 1 / vocab)
    for length in range(order):
        if length:
            oldest = np.full_like(tokens, vocab)
            oldest[length:] = tokens[:-length]
            oldest[position < length] = vocab
            # Ranks instead of base-(vocab+1) numbers, which would overflow for long contexts.
            context = np.unique(context * (vocab + 1) + oldest, return_inverse=True)[1]
        learned = np.sort(context[:split] * vocab + tokens[:split])
        grams = context[split:, None] * vocab + symbols
        first = np.flatnonzero(np.diff(learned, prepend=-1))
        kinds = np.bincount(learned[first] // vocab, minlength=context.max() + 1)
        totals = np.bincount(context[:split], minlength=len(kinds))
        counts = np.diff(np.append(first, split))
        at = np.minimum(np.searchsorted(learned[first], grams), len(first) - 1)
        count = np.where(learned[first][at] == grams, counts[at], 0)
        total, kind = totals[context[split:]][:, None], kinds[context[split:]][:, None]
        p = np.where(total > 0, (count + kind * p) / np.maximum(total + kind, 1), p)
        yield p


def _positions(documents: Documents) -> np.ndarray:
    """The place of each token in its document."""
    tokens, offsets = documents
    return np.arange(len(tokens)) - np.repeat(offsets[:-1], np.diff(offsets))
