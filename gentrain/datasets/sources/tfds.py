"""TFDS sets that were prepared before."""

import math
from pathlib import Path

from ml_collections import ConfigDict

from gentrain.datasets import store, tfds_sets, tokenizers
from gentrain.datasets.spec import ImageSpec, Spec, TextSpec
from gentrain.datasets.store import Corpus


def read(argument: str, data: ConfigDict) -> Corpus:
    """A prepared TFDS set, read once: text of feature data.tfds.text_key, or feature 'image' and its 'label'.

    Where text has an image beside it and data.conditional is set, the text is about that image.
    """
    folder = tfds_sets.find(argument)
    fractions = {"valid": data.valid_fraction, "test": data.test_fraction}
    strict = data.tokenizer != "bytes"
    key = [
        "tfds",
        store.files_identity(sorted(folder.iterdir())),
        fractions,
        data.tfds.text_key,
        data.image_size,
        strict,
    ]
    key.append(tfds_sets.pictured(folder, data))
    return store.read(store.cached(key, lambda out: tfds_sets.convert(folder, out, data)))


def prepare(argument: str) -> Path:
    """Downloads and prepares a set, unless it is there; returns its folder."""
    return tfds_sets.prepare(argument)


def expected_spec(argument: str, data: ConfigDict) -> Spec | None:
    """The spec of a set that is not prepared yet: of text whose vocabulary and context the config tells, and of images
    whose code says what they will be; else None."""
    words = {"bytes": 256, "words": data.vocab_size, "sentencepiece": data.vocab_size or tokenizers.PIECES}
    symbols = words.get(data.tokenizer, 0)
    side = data.image_size
    if data.conditional and not side:  # captions are known of pictures that are resized
        symbols = 0
    if not symbols:
        return expected_images(argument, data)
    context: dict = {"context_vocab": 256, "context_shape": (side, side, 3)} if data.conditional else {}
    return TextSpec(symbols + 1, data.length, symbols, **context)


def expected_images(argument: str, data: ConfigDict) -> Spec | None:
    announced = tfds_sets.announced(argument)
    if announced is None:
        return None
    side = data.image_size
    shape = (side, side, announced.shape[2]) if side else announced.shape
    vocab, classes = data.levels or 256, announced.classes if data.conditional else 0
    return ImageSpec(vocab, math.prod(shape), context_vocab=classes, shape=shape)
