"""Witten-Bell n-grams: what any model of text must beat, and a rough reference for the law of text. NumPy alone."""

from collections.abc import Iterator

import numpy as np

Documents = tuple[np.ndarray, np.ndarray]  # tokens, offsets: document i is tokens[offsets[i]:offsets[i+1]]


def witten_bell(train: Documents, scored: Documents, vocab: int, order: int) -> Iterator[np.ndarray]:
    """Of orders 1, 2, ..., order, each made from the last: the probability of each token of scored, (tokens,).

    p_n(w|h) = (c(h,w) + T(h) p_{n-1}(w|h')) / (c(h) + T(h)), p_0 = 1/vocab, where c counts in train, T(h) is the number
    of different tokens that followed h, and h' is h without its oldest token. Contexts never cross a document's start:
    a beginning-of-sequence symbol stands before it. (Witten & Bell 1991.)
    """
    for p in interpolate(train, scored, vocab, order, np.asarray(scored[0], np.int64)[:, None]):
        yield p[:, 0]


def conditionals(train: Documents, scored: Documents, vocab: int, order: int) -> np.ndarray:
    """The Witten-Bell conditional of what follows each prefix: (tokens of scored, vocab), row i that of token i."""
    every_symbol = np.broadcast_to(np.arange(vocab), (len(scored[0]), vocab))
    *_, last = interpolate(train, scored, vocab, order, every_symbol)
    return last


def interpolate(
    train: Documents, scored: Documents, vocab: int, order: int, symbols: np.ndarray
) -> Iterator[np.ndarray]:
    """Probabilities of symbols (tokens of scored, k) at the places of those tokens, for one order after the other."""
    tokens = np.concatenate([train[0], scored[0]]).astype(np.int64)
    position = np.concatenate([positions(train), positions(scored)])
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
        grams = np.sort(context[:split] * vocab + tokens[:split])  # of train, each as one number
        first = np.flatnonzero(np.diff(grams, prepend=-1))
        different, counts = grams[first], np.diff(np.append(first, split))
        kinds = np.bincount(different // vocab, minlength=context.max() + 1)
        totals = np.bincount(context[:split], minlength=len(kinds))
        queries = context[split:, None] * vocab + symbols
        place = np.minimum(np.searchsorted(different, queries), len(different) - 1)
        count = np.where(different[place] == queries, counts[place], 0)
        total, kind = totals[context[split:]][:, None], kinds[context[split:]][:, None]
        p = np.where(total > 0, (count + kind * p) / np.maximum(total + kind, 1), p)
        yield p


def positions(documents: Documents) -> np.ndarray:
    """The place of each token in its document."""
    tokens, offsets = documents
    return np.arange(len(tokens)) - np.repeat(offsets[:-1], np.diff(offsets))
