"""Worlds as data: samples of a distribution that is known exactly."""

from typing import Any

import numpy as np

SPLITS = ("train", "valid", "test")
CHUNK = 1024  # examples that one seed draws: what a step reads does not depend on how many processes share it


class Drawn:
    """Samples of a world by number: example n of a split is the same whoever asks, without any being stored.

    With examples > 0 training visits that many of them, each epoch in a new order; otherwise every example is new.
    """

    def __init__(self, world: Any, seed: int, split: str, examples: int, batch_size: int, rows: np.ndarray):
        self.world, self.key, self.examples = world, (seed, SPLITS.index(split)), examples
        self.batch_size, self.rows = batch_size, rows
        self.cache: dict[tuple[str, int], np.ndarray] = {}

    def _cached(self, kind: str, number: int, make: Any) -> np.ndarray:
        if (kind, number) not in self.cache:
            self.cache = dict(list(self.cache.items())[-8:])
            self.cache[kind, number] = make()
        return self.cache[kind, number]

    def _chunk(self, number: int) -> np.ndarray:
        draw = lambda: self.world.sample(np.random.default_rng([*self.key, 0, number]), CHUNK)
        return self._cached("chunk", number, draw)

    def _order(self, epoch: int) -> np.ndarray:
        shuffle = lambda: np.random.default_rng([*self.key, 1, epoch]).permutation(self.examples)
        return self._cached("order", epoch, shuffle)

    def example(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) numbers -> (n, …) examples, unshuffled."""
        return np.stack([self._chunk(n // CHUNK)[n % CHUNK] for n in numbers.tolist()])

    def batch(self, step: int) -> dict[str, np.ndarray]:
        numbers = step * self.batch_size + self.rows.astype(np.int64)
        if self.examples:
            epochs = numbers // self.examples
            numbers = np.asarray([self._order(e)[n % self.examples] for e, n in zip(epochs, numbers, strict=True)])
        return dress(self.example(numbers), np.ones(len(numbers), bool), self.rows)


class HeldOut:
    """A fixed number of samples of a split in order, the last batch filled up with rows that are masked out."""

    def __init__(self, drawn: Drawn, examples: int):
        self.drawn, self.examples = drawn, examples
        self.batches = -(-examples // drawn.batch_size)
        self.width = drawn.example(np.zeros(1, np.int64)).shape[1]
        self.tokens = self.characters = examples * self.width

    @property
    def documents(self) -> tuple[np.ndarray, np.ndarray]:
        found = self.drawn.example(np.arange(self.examples))
        return found.reshape(-1), np.arange(self.examples + 1) * self.width

    def batch(self, step: int) -> dict[str, np.ndarray]:
        numbers = step * self.drawn.batch_size + self.drawn.rows
        there = numbers < self.examples
        return dress(self.drawn.example(np.minimum(numbers, self.examples - 1)), there, self.drawn.rows)


def dress(found: np.ndarray, there: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of examples: sequences have a mask over tokens, points over rows."""
    row = rows.astype(np.int32)
    if found.dtype.kind == "f":
        return {"points": found.astype(np.float32), "mask": there, "row": row}
    mask = np.broadcast_to(there[:, None], found.shape).copy()
    return {"tokens": np.where(mask, found, 0).astype(np.int32), "mask": mask, "row": row}
