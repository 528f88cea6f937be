"""TFDS sets that are prepared already."""

import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gentrain.datasets import published_tokenizer, store, tfds_sets, tokenizers
from gentrain.datasets.spec import ImageSpec, Spec, TextSpec
from gentrain.datasets.store import Corpus
from gentrain.published import families


def read(argument: str, data: ConfigDict) -> Corpus:
    """A prepared TFDS set: text of feature data.tfds.text_key, or feature 'image' and its 'label'.

    Where text has an image beside it and data.conditional is set, the text is about that image.
    """
    folder = tfds_sets.find(argument)
    tfds_sets.check_files(folder)
    key = [
        "tfds",
        store.files_identity(sorted(folder.iterdir())),
        {"valid": data.valid_fraction, "test": data.test_fraction},
        data.tfds.text_key,
        data.image_size,
        data.tokenizer != "bytes",
        data.max_damaged,
        tfds_sets.has_pictures(folder, data),
    ]
    return store.read(store.cached(key, lambda out: tfds_sets.convert(folder, out, data)))


def prepare(argument: str) -> Path:
    """Downloads and prepares a set, unless it is there; returns its folder."""
    return tfds_sets.prepare(argument)


def expected_spec(argument: str, data: ConfigDict) -> Spec | None:
    """The spec of a set that is still to be prepared; None where neither the config nor the set's code tells it.

    The config tells that of text, if it tells the vocabulary, and the size of the pictures that the text is about. The
    code of a set tells what its images are.
    """
    vocab_sizes = {"bytes": 256, "words": data.vocab_size, "sentencepiece": data.vocab_size or tokenizers.PIECES}
    symbols, end = vocab_sizes.get(data.tokenizer, 0), None
    if families.is_published(data.tokenizer):
        rows, end = published_tokenizer.announced(data.tokenizer)
        symbols = rows - 1
    side = data.image_size
    if not symbols or (data.conditional and not side):
        return expected_images(argument, data)
    context: dict[str, Any] = {"context_vocab": 256, "context_shape": (side, side, 3)} if data.conditional else {}
    return TextSpec(symbols + 1, data.length, symbols if end is None else end, **context)


def expected_images(argument: str, data: ConfigDict) -> Spec | None:
    """The spec of images that the code of their set describes, else None."""
    announced = tfds_sets.announced(argument)
    if announced is None:
        return None
    side = data.image_size
    shape = (side, side, announced.shape[2]) if side else announced.shape
    classes = announced.classes if data.conditional else 0
    return ImageSpec(data.levels or 256, math.prod(shape), context_vocab=classes, shape=shape)
