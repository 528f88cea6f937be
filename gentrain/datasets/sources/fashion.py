"""Fashion-MNIST, 70,000 pieces of clothing."""

import gzip
import tempfile
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets import fetch, store
from gentrain.datasets.pictures import fit
from gentrain.datasets.store import Corpus, Writer
from gentrain.errors import DataError

PACKAGE = "dataset-fashion-mnist"  # of Debian
FOLDER = "usr/share/datasets/fashion-mnist"  # where the package puts its files
FILES = {  # and their sha256
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
SIDE = 28
VALID = 5_000  # of the images given for training, the last
CLOTHES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def read(argument: str, data: ConfigDict) -> Corpus:
    """Images of 28x28 values 0..255, or data.image_size on a side, in ten classes; the last 5,000 that are given for
    training are valid."""
    size = data.image_size or SIDE

    def make(folder: Path) -> None:
        files = read_files()
        with Writer(folder) as writer:
            for given in ("train", "t10k"):
                images = np.frombuffer(gzip.decompress(files[f"{given}-images-idx3-ubyte.gz"]), np.uint8, offset=16)
                labels = np.frombuffer(gzip.decompress(files[f"{given}-labels-idx1-ubyte.gz"]), np.uint8, offset=8)
                for number, (image, label) in enumerate(zip(images.reshape(-1, SIDE, SIDE, 1), labels, strict=True)):
                    split = "test" if given == "t10k" else "train" if number < len(labels) - VALID else "valid"
                    writer.add(split, fit(image, 1, data.image_size).tobytes(), int(label))
            writer.finish(kind="image", shape=[size, size, 1], top=255, classes=CLOTHES)

    return store.read(store.cached(["fashion", FILES, *([] if size == SIDE else [size])], make))


def read_files() -> dict[str, bytes]:
    """The contents of FILES, as installed or, for this once, fetched. Raises DataError."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path("/", FOLDER)
        try:
            if not root.is_dir():
                fetch.debian_package(PACKAGE, Path(scratch))
                root = Path(scratch, FOLDER)
            return {name: fetch.read_pinned(root / name, sha256) for name, sha256 in FILES.items()}
        except DataError as error:
            raise DataError(f"{error}, or use tfds:fashion_mnist in its place") from error
