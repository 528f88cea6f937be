"""Data: a name in the config -> batch(step), a pure function of the seed and the step. The only rooms that know Grain and TFDS."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

Batch = dict[str, np.ndarray]


class Spec(NamedTuple):
    """What models and evaluators must know about the data.

    vocab: tokens are 0..vocab-1. length: tokens a row. end: the token that closes a document, or None where every row is full.
    kind: 'text' or 'image'. decode: tokens (n,) of one document without its end -> str for text, uint8 (height, width, channels)
    for images. context_vocab: 0, or the number of symbols of batch['context'].
    """

    vocab: int
    length: int
    end: int | None
    kind: str
    decode: Callable[[np.ndarray], Any]
    context_vocab: int = 0


class Source(Protocol):
    """Random access to batches; there is no iterator state, so a step number is the whole data position.

    batch(step) is this process's rows of global batch number `step`, a dict of arrays:
    tokens (rows, length) int32, targets, the end token included, padded with 0;
    mask (rows, length) bool, False on padding;
    row (rows,) int32, the row's number in the global batch, from which per-example keys are made;
    context (rows, positions) int32, only where spec.context_vocab > 0.
    """

    def batch(self, step: int) -> Batch: ...


class Split(Protocol):
    """One pass over a split in file order: batch(0..batches-1), the last one filled up with rows that are masked out.

    tokens: targets in the split; characters: what a reader counts instead (characters of the text plus one for each document's
    end; values of an image), so that nats/character = nats/token * tokens / characters.
    documents: (tokens, offsets): all tokens in one array, document i being tokens[offsets[i]:offsets[i+1]].
    """

    batches: int
    tokens: int
    characters: int
    documents: tuple[np.ndarray, np.ndarray]

    def batch(self, step: int) -> Batch: ...


class Data(NamedTuple):
    spec: Spec
    train: Source
    split: Callable[[str], Split]  # 'train', 'valid' or 'test'
    summary: dict[str, Any]  # what was found: examples, tokens, and each source's share and epochs over the run
