"""Rows of texts that evaluators compare: those of a split, and generated ones."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from gentrain.datasets.build import Split
from gentrain.decode import Samples

FEWEST = 40  # texts of which anything is said


class Rows(NamedTuple):
    """Texts: tokens (n, length) int32, their ends included, and the mask of those that count."""

    tokens: np.ndarray
    mask: np.ndarray

    def take(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Some of the rows, as a batch."""
        return {"tokens": self.tokens[chosen], "mask": self.mask[chosen]}


def shuffled(split: Split) -> np.ndarray:
    """The numbers of a split's texts, always in the same order."""
    return np.random.default_rng(0).permutation(len(split.pieces[1]) - 1)


def choose_rows(split: Split, count: int, length: int) -> Rows:
    """So many texts of a split as rows have them, or all if it has fewer: always the same ones."""
    tokens, offsets = split.pieces
    chosen = np.sort(shuffled(split)[:count])
    place = offsets[chosen, None] + np.arange(length)
    mask = place < offsets[chosen + 1, None]
    return Rows(np.where(mask, tokens[np.minimum(place, len(tokens) - 1)], 0).astype(np.int32), mask)


def draw_rows(draw: Callable[[Array], Samples], count: int, size: int) -> Rows:
    """So many texts, of which draw(rows (size,)) makes `size` at once."""
    parts = [draw(start + jnp.arange(size)) for start in range(0, count, size)]
    return Rows(*(np.concatenate([getattr(part, name) for part in parts])[:count] for name in Rows._fields))
