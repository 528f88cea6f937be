"""Captions of pairs of pictures: 'a 3 to the left of an 8'."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets import pictures, store
from gentrain.datasets.reading import read_source
from gentrain.datasets.store import Corpus, Writer
from gentrain.errors import ConfigError


def read(argument: str, data: ConfigDict) -> Corpus:
    """'a 3 to the left of an 8', about such a picture: two labelled pictures of source `argument`, side by side.

    The pictures of a pair are of the same split. Raises ConfigError where the source has no classes.
    """
    source = read_source(argument, data)
    if not source.meta.get("classes"):
        raise ConfigError(
            f"data.name='captions:{argument}': expected pictures with class names, and {argument} has none"
        )
    size, train_pairs = data.image_size, data.captions.pairs
    height, width, channels = source.meta["shape"]
    values = np.round(np.arange(source.meta["top"] + 1) * (255 / source.meta["top"])).astype(np.uint8)
    names = [with_article(name) for name in source.meta["classes"]]

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for split, arrays in source.splits.items():
                images, labels = arrays.tokens.reshape(-1, height, width, channels), arrays.labels.tolist()
                count = train_pairs if split == "train" and train_pairs else len(images)
                for pair in neighbours(len(images), count):
                    left, right = (pictures.fit(values[images[i]], channels, size) for i in pair)
                    number = writer.context(np.concatenate([left, right], axis=1))
                    text = f"{names[labels[pair[0]]]} to the left of {names[labels[pair[1]]]}"
                    writer.add(split, text.encode(), number)
            shape = [size, 2 * size, channels] if size else [height, 2 * width, channels]
            writer.finish(kind="text", context_shape=shape)

    return store.read(store.cached(["captions", source.digest, train_pairs, size], make))


def with_article(name: str) -> str:
    """'a 3', 'an 8'."""
    return f"{'an' if re.match('[aeiou8]|1[18]$', name, re.I) else 'a'} {name}"


def neighbours(images: int, count: int) -> Iterator[tuple[int, int]]:
    """`count` pairs of different images: in each round all stand in a new circle, each to the left of the next."""

    def rounds() -> Iterator[tuple[int, int]]:
        for number in range(-(-count // max(images, 1))):
            order = np.random.RandomState(number).permutation(images)  # its stream is frozen, unlike default_rng's
            yield from zip(order.tolist(), np.roll(order, -1).tolist(), strict=True)

    return islice(rounds(), count)
