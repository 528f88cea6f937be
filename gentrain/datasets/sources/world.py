"""Worlds as data: samples of a distribution that is known exactly."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from gentrain import worlds
from gentrain.datasets import store
from gentrain.datasets.build import Batch, Data
from gentrain.datasets.spec import PointSpec, Spec, TextSpec
from gentrain.files import open_regular

CHUNK = 1024  # examples that one seed draws: what a step reads does not depend on how many processes share it


def build(config: ConfigDict, workdir: Path | None, rows: np.ndarray) -> Data:
    """Samples of the world, each a function of its number: nothing is stored."""
    options, size = config.data.world, config.data.batch_size
    world = worlds.of(config, "data")
    spec = spec_of(world)
    sources = {}
    for number, split in enumerate(store.SPLITS):
        examples = options.examples if split == "train" else 0
        sources[split] = WorldSource(world, (config.seed, number), examples, size, rows)
    splits = {split: WorldSplit(source, options.held_out, spec.length) for split, source in sources.items()}
    return Data(spec, sources["train"], splits.__getitem__, summarise(config, spec))


def spec_of(world: worlds.World) -> Spec:
    """What models must know of a world's samples."""
    if isinstance(world, worlds.SequenceWorld):
        return TextSpec(world.vocab, world.length)
    return PointSpec(0, world.dimension)


def summarise(config: ConfigDict, spec: Spec) -> dict[str, Any]:
    """See build.Data; without a fixed set, a run's examples are those that it draws."""
    name, fixed, draws = config.data.name, config.data.world.examples, config.steps * config.data.batch_size
    examples = fixed or draws
    source = {"share": 1.0, "examples": examples, "drawn": draws, "epochs": draws / examples}
    return {
        "documents": examples,
        "tokens": examples * spec.length,
        "vocab": spec.vocab,
        "length": spec.length,
        "examples": examples,
        "cut": 0,
        "repeated": 0,
        "damaged": 0,
        "held_out": 2 * config.data.world.held_out,
        "digests": {name: digest_of_law(config.data.world.path)},
        "sources": {name: source},
    }


def digest_of_law(path: str) -> str:
    """Of what a law comes from besides the config: the file of weights; '' where there is none."""
    if not path:
        return ""
    with open_regular(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class WorldSource:
    """Samples of a world by number: example n of a key is the same whoever reads it, without any being stored.

    key: of the random numbers. examples: how many there are, visited in a new order each epoch; 0: every one is new.
    rows: the rows of the global batch that this process reads.
    """

    def __init__(self, world: worlds.World, key: tuple[int, int], examples: int, batch_size: int, rows: np.ndarray):
        self.world, self.key, self.examples = world, key, examples
        self.batch_size, self.rows = batch_size, rows
        self.chunk = functools.lru_cache(8)(self.draw_chunk)
        self.order = functools.lru_cache(8)(self.shuffle)

    def draw_chunk(self, number: int) -> np.ndarray:
        """Examples CHUNK * number, …, unshuffled."""
        return self.world.sample(np.random.default_rng([*self.key, 0, number]), CHUNK)

    def shuffle(self, epoch: int) -> np.ndarray:
        """The numbers of a fixed set's examples in the order of this epoch."""
        return np.random.default_rng([*self.key, 1, epoch]).permutation(self.examples)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """The examples of these numbers (n,), unshuffled: (n, …)."""
        return np.stack([self.chunk(number // CHUNK)[number % CHUNK] for number in numbers.tolist()])

    @functools.cached_property
    def fixed(self) -> np.ndarray:
        """The fixed set of training: all of it, since every batch reads from all over it."""
        return self.read(np.arange(self.examples))

    def batch(self, step: int) -> Batch:
        numbers = step * self.batch_size + self.rows.astype(np.int64)
        if self.examples:
            visits = [divmod(number, self.examples) for number in numbers.tolist()]
            examples = self.fixed[np.asarray([self.order(epoch)[place] for epoch, place in visits])]
        else:
            examples = self.read(numbers)
        return as_batch(examples, np.ones(len(numbers), bool), self.rows)


class WorldSplit:
    """A fixed number of a source's examples in order; see build.Split. width: tokens, or coordinates, of an example."""

    def __init__(self, source: WorldSource, examples: int, width: int):
        self.source, self.examples, self.width = source, examples, width
        self.batches = -(-examples // source.batch_size)
        self.tokens = self.characters = examples * self.width

    @functools.cached_property
    def fixed(self) -> np.ndarray:
        """All of it, kept: some worlds take long to draw from, and every evaluation reads the same."""
        return self.source.read(np.arange(self.examples))

    @property
    def documents(self) -> tuple[np.ndarray, np.ndarray]:
        return self.fixed.reshape(-1), np.arange(self.examples + 1) * self.width

    @property
    def pieces(self) -> tuple[np.ndarray, np.ndarray]:
        return self.documents

    def batch(self, step: int) -> Batch:
        rows = self.source.rows
        numbers = step * self.source.batch_size + rows
        return as_batch(self.fixed[np.minimum(numbers, self.examples - 1)], numbers < self.examples, rows)

    def take(self, numbers: np.ndarray) -> Batch:
        return as_batch(self.fixed[numbers], np.ones(len(numbers), bool), np.arange(len(numbers)))


def as_batch(examples: np.ndarray, row_mask: np.ndarray, rows: np.ndarray) -> Batch:
    """A batch of examples (n, …): sequences have a mask over tokens, points over rows. rows (n,): see build.Source."""
    row = rows.astype(np.int32)
    if examples.dtype.kind == "f":
        return {"points": examples.astype(np.float32), "mask": row_mask, "row": row}
    mask = np.broadcast_to(row_mask[:, None], examples.shape).copy()
    return {"tokens": np.where(mask, examples, 0).astype(np.int32), "mask": mask, "row": row}
