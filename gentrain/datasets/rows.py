"""Rows of a batch: slices of a corpus's one token array, and the order in which training visits them."""

from typing import NamedTuple

import numpy as np

from gentrain.datasets.store import Arrays


class Part(NamedTuple):
    """What one source gives to a split: row r is tokens[edges[r]:edges[r+1]].

    labels: one a row, its class or the number of its context, or none at all; where there are labels, a row is a
    document. contexts: what the labels number; None: labels are classes.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    edges: np.ndarray
    labels: np.ndarray
    characters: int
    contexts: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return len(self.edges) - 1


def lay_out(arrays: Arrays, length: int, layout: str) -> Part:
    """A split in rows of at most `length` tokens. layout: 'pad', one document or a piece of one a row, or 'pack'."""
    edges = cut(np.asarray(arrays.offsets), length)
    if layout == "pack":
        edges = pack(edges, length)
    return Part(arrays.tokens, arrays.offsets, edges, arrays.labels, arrays.characters, arrays.contexts)


def first_rows(part: Part, rows: int) -> Part:
    """The first rows of a part: the last document ends with them, and characters are taken to be spread evenly."""
    stop = part.edges[rows]
    offsets = np.append(part.offsets[: np.searchsorted(part.offsets, stop)], stop)
    characters = round(part.characters * int(stop) / len(part.tokens))
    return Part(part.tokens[:stop], offsets, part.edges[: rows + 1], part.labels[:rows], characters, part.contexts)


def cut(offsets: np.ndarray, length: int) -> np.ndarray:
    """Edges of rows that hold one document each, or one piece of a document that is longer than a row."""
    pieces = -(-np.diff(offsets) // length)
    first = np.cumsum(pieces) - pieces
    within = np.arange(pieces.sum()) - np.repeat(first, pieces)
    return np.append(np.repeat(offsets[:-1], pieces) + within * length, offsets[-1])


def pack(edges: np.ndarray, length: int) -> np.ndarray:
    """Edges of rows that hold as many of the given pieces, in order, as fit (next-fit); no piece is split.

    A piece that does not end its document is as long as a row, so in a row a token is followed by one of another
    document only after an end token.
    """
    following = (np.searchsorted(edges, edges + length, "right") - 1).tolist()
    chain, at, last = [0], 0, len(edges) - 1
    while at < last:
        at = following[at]
        chain.append(at)
    return edges[chain]


def proportions(weights: list[float]) -> np.ndarray:
    """Weights as whole millionths, at least one each, so that shares are integer arithmetic."""
    return np.maximum(1, np.round(np.asarray(weights) / np.sum(weights) * 1_000_000)).astype(np.int64)


def draws_by_source(number: np.ndarray | int, shares: np.ndarray) -> np.ndarray:
    """How many of the first `number` draws come from each source: (…) int -> (sources, …) int64.

    These are the counts of grain.MapDataset.mix, which finds them one draw at a time: that makes a batch ten times
    slower than reading it.
    """
    counts, left, remaining = [], np.asarray(number, np.int64), int(np.sum(shares))
    for share in shares.tolist():
        rest = left * (remaining - share) // remaining
        counts.append(left - rest)
        left, remaining = rest, remaining - share
    return np.stack(counts)


class Shuffled:
    """Training's endless order, a function of n = step * batch_size + row, the number of an example in the run.

    Example n is drawn from a source by its share, and each source visits its rows in a new permutation every epoch. It
    is the order of grain.MapDataset.mix over range(rows).shuffle().repeat(), without an object and its statistics per
    example. rows: the rows of the global batch that this process reads; length: tokens a row.
    """

    def __init__(
        self, parts: list[Part], shares: np.ndarray, seed: int, batch_size: int, rows: np.ndarray, length: int
    ):
        self.parts, self.shares, self.batch_size, self.rows, self.length = parts, shares, batch_size, rows, length
        # Sources of one size would otherwise go through the same permutations.
        seeds = [np.random.SeedSequence([seed % 2**32, i]).generate_state(1)[0] for i in range(len(parts))]
        self.seeds = np.asarray(seeds, np.int64)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        return gather(self.parts, *self.places(step), self.rows, self.length)

    def places(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of a batch, the number of its part and that of the row there."""
        from grain.experimental import index_shuffle

        numbers = step * self.batch_size + self.rows.astype(np.int64)
        before = draws_by_source(numbers, self.shares)
        after = draws_by_source(numbers + 1, self.shares)
        sources = np.argmax(after - before, axis=0)
        visits = before[sources, np.arange(len(numbers))]  # of the source, before this one
        counts = np.asarray([part.rows for part in self.parts])[sources]
        epochs, places = np.divmod(visits, counts)
        seeds = (self.seeds[sources] + epochs) % 2**32
        each = zip(places.tolist(), (counts - 1).tolist(), seeds.tolist(), strict=True)
        return sources, np.asarray([index_shuffle(place, last, seed, 4) for place, last, seed in each], np.int64)


class Pass:
    """One pass over a split in file order, source after source; the last batch is filled up with masked rows."""

    def __init__(self, parts: list[Part], batch_size: int, rows: np.ndarray, length: int):
        self.parts, self.batch_size, self.rows, self.length = parts, batch_size, rows, length
        self.ends = np.cumsum([part.rows for part in parts])
        self.batches = -(-int(self.ends[-1]) // batch_size)
        self.tokens = sum(len(part.tokens) for part in parts)
        self.characters = sum(part.characters for part in parts)

    @property
    def documents(self) -> tuple[np.ndarray, np.ndarray]:
        if len(self.parts) == 1:
            return self.parts[0].tokens, self.parts[0].offsets
        starts = np.cumsum([0, *(len(part.tokens) for part in self.parts)])
        offsets = [part.offsets[:-1] + start for part, start in zip(self.parts, starts, strict=False)]
        return np.concatenate([part.tokens for part in self.parts]), np.concatenate([*offsets, starts[-1:]])

    @property
    def pieces(self) -> tuple[np.ndarray, np.ndarray]:
        tokens, offsets = self.documents
        return tokens, cut(np.asarray(offsets), self.length)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        if not 0 <= step < self.batches:
            raise IndexError(f"batch {step} of a split of {self.batches}")
        return self.gather(step * self.batch_size + self.rows.astype(np.int64), self.rows)

    def take(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        return self.gather(numbers, np.arange(len(numbers)))

    def gather(self, numbers: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of these numbers in the split, and empty ones past its end, as rows of a batch."""
        sources = np.searchsorted(self.ends, numbers, "right")  # len(parts) past the end: no part, an empty row
        part_rows = numbers - np.concatenate([[0], self.ends])[sources]
        return gather(self.parts, sources, part_rows, rows, self.length)


def gather(
    parts: list[Part], sources: np.ndarray, part_rows: np.ndarray, rows: np.ndarray, length: int
) -> dict[str, np.ndarray]:
    """The batch whose i-th row is row part_rows[i] of parts[sources[i]], padded with 0.

    rows: the numbers of these rows in the global batch.
    """
    count = len(rows)
    tokens, mask = np.zeros((count, length), np.int32), np.zeros((count, length), bool)
    batch = {"tokens": tokens, "mask": mask, "row": rows.astype(np.int32)}
    if len(parts) > 1:
        batch["source"] = np.minimum(sources, len(parts) - 1).astype(np.int32)
    for number, part in enumerate(parts):
        chosen = sources == number
        begin, stop = part.edges[part_rows[chosen]], part.edges[part_rows[chosen] + 1]
        positions = begin[:, None] + np.arange(length)
        mask[chosen] = positions < stop[:, None]
        tokens[chosen] = np.where(mask[chosen], part.tokens[np.minimum(positions, len(part.tokens) - 1)], 0)
        if len(part.labels):
            labels = part.labels[part_rows[chosen]]
            contexts = labels[:, None] if part.contexts is None else part.contexts[labels]
            dtype = np.uint8 if contexts.ndim == 4 else np.int32  # pictures stay bytes, a quarter of the traffic
            batch.setdefault("context", np.zeros((count, *contexts.shape[1:]), dtype))[chosen] = contexts
    return batch
