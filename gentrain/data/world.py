"""Worlds as data: samples of a distribution that is known exactly."""

import functools
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
        self._chunk, self._order = functools.lru_cache(8)(self._draw), functools.lru_cache(8)(self._shuffle)

    def _draw(self, number: int) -> np.ndarray:
        return self.world.sample(np.random.default_rng([*self.key, 0, number]), CHUNK)

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([*self.key, 1, epoch]).permutation(self.examples)

    def example(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) numbers -> (n, …) examples, unshuffled."""
        return np.stack([self._chunk(n // CHUNK)[n % CHUNK] for n in numbers.tolist()])

    @functools.cached_property
    def fixed(self) -> np.ndarray:
        """The fixed set of training: all of it, since every batch reads from all over it."""
        return self.example(np.arange(self.examples))

    def batch(self, step: int) -> dict[str, np.ndarray]:
        numbers = step * self.batch_size + self.rows.astype(np.int64)
        if self.examples:
            epochs = numbers // self.examples
            numbers = np.asarray([self._order(int(e))[n % self.examples] for e, n in zip(epochs, numbers, strict=True)])
        found = self.fixed[numbers] if self.examples else self.example(numbers)
        return dress(found, np.ones(len(numbers), bool), self.rows)


class HeldOut:
    """A fixed number of samples of a split in order, the last batch filled up with rows that are masked out."""

    def __init__(self, drawn: Drawn, examples: int, width: int):
        self.drawn, self.examples, self.width = drawn, examples, width
        self.batches = -(-examples // drawn.batch_size)
        self.tokens = self.characters = examples * self.width

    @functools.cached_property
    def fixed(self) -> np.ndarray:
        """All of it, kept: some worlds take long to draw from, and every evaluation reads the same."""
        return self.drawn.example(np.arange(self.examples))

    @property
    def documents(self) -> tuple[np.ndarray, np.ndarray]:
        return self.fixed.reshape(-1), np.arange(self.examples + 1) * self.width

    def batch(self, step: int) -> dict[str, np.ndarray]:
        numbers = step * self.drawn.batch_size + self.drawn.rows
        there = numbers < self.examples
        return dress(self.fixed[np.minimum(numbers, self.examples - 1)], there, self.drawn.rows)


def dress(found: np.ndarray, there: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of examples: sequences have a mask over tokens, points over rows."""
    row = rows.astype(np.int32)
    if found.dtype.kind == "f":
        return {"points": found.astype(np.float32), "mask": there, "row": row}
    mask = np.broadcast_to(there[:, None], found.shape).copy()
    return {"tokens": np.where(mask, found, 0).astype(np.int32), "mask": mask, "row": row}
