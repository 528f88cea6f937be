"""scikit-learn's 1,797 handwritten digits."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets import store
from gentrain.datasets.pictures import write_tenths
from gentrain.datasets.store import Corpus, Writer


def read(argument: str, data: ConfigDict) -> Corpus:
    """Images of 8x8 values 0..16, with the digit as their class."""

    def make(folder: Path) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        with Writer(folder) as writer:
            write_tenths(writer, digits.data.astype(np.uint8), digits.target)
            writer.finish(kind="image", shape=[8, 8, 1], top=16, classes=[str(name) for name in digits.target_names])

    return store.read(store.cached("digits", make))
