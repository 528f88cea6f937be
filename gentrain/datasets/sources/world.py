"""Worlds as data: samples of a distribution that is known exactly."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from gentrain import worlds
from gentrain.datasets import store
from gentrain.datasets.build import Data
from gentrain.datasets.spec import PointSpec, Spec, TextSpec

CHUNK = 1024  # examples that one seed draws: what a step reads does not depend on how many processes share it


def build(config: ConfigDict, workdir: Path | None, rows: np.ndarray) -> Data:
    """Each example is read by its number; nothing is stored."""
    name, options, size = config.data.name, config.data.world, config.data.batch_size
    world = worlds.of(config, "data")
    samples = {
        split: Drawn(world, config.seed, split, options.examples if split == "train" else 0, size, rows)
        for split in store.SPLITS
    }
    spec: Spec
    if isinstance(world, worlds.SequenceWorld):
        spec = TextSpec(world.vocab, world.length, None, lambda tokens: " ".join(str(token) for token in tokens))
    else:
        spec = PointSpec(0, world.dimension)
    draws = config.steps * size
    examples, epochs = options.examples or draws, draws / options.examples if options.examples else 1.0
    source = {"share": 1.0, "examples": examples, "drawn": draws, "epochs": epochs}
    summary = {"documents": examples, "tokens": examples * spec.length, "vocab": spec.vocab, "length": spec.length}
    summary |= {"examples": examples, "digest": name, "sources": {name: source}}
    held_out = {split: HeldOut(samples[split], options.held_out, spec.length) for split in store.SPLITS}
    return Data(spec, samples["train"], held_out.__getitem__, summary)


class Drawn:
    """Samples of a world by number: example n of a split is the same whoever asks, without any being stored.

    With examples > 0 training visits that many of them, each epoch in a new order; otherwise every example is new.
    """

    def __init__(self, world: Any, seed: int, split: str, examples: int, batch_size: int, rows: np.ndarray):
        self.world, self.key, self.examples = world, (seed, store.SPLITS.index(split)), examples
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
        return as_batch(found, np.ones(len(numbers), bool), self.rows)


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
        row_mask = numbers < self.examples
        return as_batch(self.fixed[np.minimum(numbers, self.examples - 1)], row_mask, self.drawn.rows)


def as_batch(examples: np.ndarray, row_mask: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of examples: sequences have a mask over tokens, points over rows."""
    row = rows.astype(np.int32)
    if examples.dtype.kind == "f":
        return {"points": examples.astype(np.float32), "mask": row_mask, "row": row}
    mask = np.broadcast_to(row_mask[:, None], examples.shape).copy()
    return {"tokens": np.where(mask, examples, 0).astype(np.int32), "mask": mask, "row": row}
