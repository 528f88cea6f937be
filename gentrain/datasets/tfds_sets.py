"""TFDS sets that are prepared already: found without a network, read without TensorFlow; and how to prepare one."""

import fnmatch
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets import held_out
from gentrain.datasets.pictures import Pictures
from gentrain.datasets.store import Writer
from gentrain.errors import DamagedExample, DataError
from gentrain.files import open_regular

COMMAND = "run: python -m launch.prepare --config=<your config>"
WITHOUT_TENSORFLOW = ("array_record", "parquet")
CHUNK = 256  # examples decoded at a time
NAMES = {
    "train": ("train",),
    "valid": ("validation", "valid", "val"),
    "test": ("test",),
}  # that splits have, best first


class Example(NamedTuple):
    """An example of a set: the split that it goes to, its place in the set for errors, and its features."""

    split: str
    where: str
    features: dict[str, Any]


def data_dir() -> Path:
    """Where sets are prepared: TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()


def is_path(where: str) -> bool:
    """Whether a set is named by the path of its folder."""
    return where.startswith(("/", "~", "."))


def find(where: str) -> Path:
    """The folder of a prepared set, named as TFDS does (name, name/config, name:version) or by that folder's path.

    tfds.load would look for an unprepared set on the network, for minutes; this only looks at folders. Raises DataError
    where there is none, and where several of a set's configs are prepared and none is named.
    """
    if is_path(where):
        folder = Path(where).expanduser()
        if not (folder / "dataset_info.json").is_file():
            raise DataError(
                f"{folder} is not a prepared TFDS set: no dataset_info.json (the folder is named like 1.0.0)"
            )
        return folder
    name, _, version = where.partition(":")
    root = data_dir() / name
    found = versions(root, version or "*")
    if not found and root.is_dir():  # a set with configs, of which none was named: the only one that is prepared
        configs = {child.name: versions(child, version or "*") for child in sorted(root.iterdir()) if child.is_dir()}
        configs = {config: folders for config, folders in configs.items() if folders}
        if len(configs) > 1:
            raise DataError(
                f"tfds:{name} is prepared in the configs {', '.join(configs)}: "
                f"name one, as tfds:{name}/{next(iter(configs))}"
            )
        found = next(iter(configs.values()), [])
    if not found:
        raise DataError(f"tfds:{where} is not prepared in {data_dir()} (TFDS_DATA_DIR); {COMMAND}")
    return found[-1]


def versions(root: Path, pattern: str) -> list[Path]:
    """Prepared versions in a folder, oldest first."""
    if not root.is_dir():
        return []
    folders = [f for f in root.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", f.name) and fnmatch.fnmatch(f.name, pattern)]
    folders = [folder for folder in folders if (folder / "dataset_info.json").is_file()]
    return sorted(folders, key=lambda folder: [int(number) for number in folder.name.split(".")])


def check_files(folder: Path) -> None:
    """Raises DataError for what is no regular file of the folder: TFDS would wait for it, or read elsewhere."""
    for file in folder.iterdir():
        try:
            open_regular(file, folder).close()
        except OSError as error:
            raise DataError(f"{folder} is not as TFDS prepares a set: {error}") from error


def prepare(where: str) -> Path:
    """Downloads and prepares a TFDS set as array_record, unless it is there; returns its folder.

    Many sets need TensorFlow for this. Raises DataError, in one line that says what to do.
    """
    import tensorflow_datasets as tfds

    try:
        return find(where)
    except DataError:
        if is_path(where):
            raise
    try:
        tfds.builder(where, data_dir=data_dir()).download_and_prepare(file_format="array_record")
    except Exception as error:  # whatever a builder raises: the reader needs one line and what to do
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        if not importlib.util.find_spec("tensorflow") and "tensorflow" in repr(error).lower():
            raise DataError(
                f"preparing tfds:{where} needs TensorFlow ({reason}); run: pip install tensorflow-cpu"
            ) from error
        raise DataError(f"cannot prepare tfds:{where} into {data_dir()}: {type(error).__name__}: {reason}") from error
    return find(where)


class Announced(NamedTuple):
    """What a set's code says of its images: (height, width, channels), and the number of classes, 0 without labels."""

    shape: tuple[int, int, int]
    classes: int


def announced(where: str) -> Announced | None:
    """What the code of a TFDS set says of its images, before they are prepared.

    None for a set without images, or whose images differ in size, and for one that TFDS does not have or cannot load.
    """
    import tensorflow_datasets as tfds

    try:
        features = dict(tfds.builder(where.partition(":")[0], data_dir=data_dir()).info.features)
    except Exception:  # it does not exist, or its code needs TensorFlow
        return None
    shape, label = getattr(features.get("image"), "shape", None), features.get("label")
    if not shape or None in shape:
        return None
    return Announced(tuple(shape), label.num_classes if isinstance(label, tfds.features.ClassLabel) else 0)


def feature_names(folder: Path) -> list[str]:
    """The features of a prepared set, b within a as a/b; read without importing TFDS, which takes seconds."""

    def within(feature: dict[str, Any], path: str) -> Iterator[str]:
        inner = feature.get("sequence", {}).get("feature", feature)
        for name, part in inner.get("featuresDict", {}).get("features", {}).items():
            yield path + name
            yield from within(part, f"{path}{name}/")

    return list(within(json.loads((folder / "features.json").read_text()), ""))


def has_pictures(folder: Path, data: ConfigDict) -> bool:
    """Whether the texts of a set get its images as their contexts."""
    return data.conditional and {data.tfds.text_key, "image"} <= set(feature_names(folder))


def convert(folder: Path, out: Path, data: ConfigDict) -> None:
    """Reads a prepared set into a raw corpus in the folder `out`.

    Raises DataError where the set has no split 'train', or neither the text nor the images that data asks for.
    """
    import tensorflow_datasets as tfds
    from PIL import EpsImagePlugin

    EpsImagePlugin.gs_binary = False  # TFDS decodes whatever is there as a picture, and PostScript would be run
    builder = tfds.builder_from_directory(folder)
    features, splits = dict(builder.info.features), builder.info.splits
    if "train" not in splits:
        raise DataError(f"{folder} has no split 'train', only: {', '.join(splits) or 'none'}")
    is_text = data.tfds.text_key in feature_names(folder)
    has_labels = isinstance(features.get("label"), tfds.features.ClassLabel)
    if not is_text and ("image" not in features or (data.conditional and not has_labels)):
        raise DataError(
            f"{folder} has neither the feature data.tfds.text_key = {data.tfds.text_key!r} nor 'image'"
            f"{' with a class label' if data.conditional else ''}; it has: {', '.join(feature_names(folder))}"
        )
    with Writer(out, max_damaged=data.max_damaged) as writer:
        if is_text:
            write_texts(writer, read_splits(builder, data), data, has_pictures(folder, data))
        else:
            classes = list(features["label"].names) if has_labels else []
            write_images(writer, read_splits(builder, data), data, classes)


def read_splits(builder: Any, data: ConfigDict) -> Iterator[Example]:
    """All examples of a set; what is not given of valid and test is the end of train: ..., valid, test."""
    splits = builder.info.splits
    given = {split: name for split, names in NAMES.items() for name in reversed(names) if name in splits}
    total = splits["train"].num_examples
    counts = {split: int(total * share) for split, share in held_out.missing_fractions(given, data).items()}
    for split, name in given.items():
        for number, features in enumerate(read(builder, name)):
            left = total - number
            target = split
            if split == "train" and left <= sum(counts.values()):
                target = "test" if left <= counts.get("test", 0) else "valid"
            yield Example(target, f"example {number} of {name!r} in {builder.data_dir}", features)


def read(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """All examples of a split in stored order, as numpy. Raises DataError for a format that only TensorFlow reads."""
    import tensorflow_datasets as tfds

    file_format = builder.info.file_format.value
    if file_format in WITHOUT_TENSORFLOW:
        source = builder.as_data_source(split)
        for start in range(0, len(source), CHUNK):
            yield from source.__getitems__(list(range(start, min(start + CHUNK, len(source)))))
    elif importlib.util.find_spec("tensorflow"):
        one_by_one = tfds.ReadConfig(interleave_cycle_length=1)  # TFDS would take turns between the files
        yield from tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, read_config=one_by_one))
    else:
        raise DataError(
            f"{builder.data_dir} is stored as {file_format}, which only TensorFlow reads: pip install tensorflow-cpu, "
            f"or delete it and {COMMAND}"
        )


def write_texts(writer: Writer, examples: Iterator[Example], data: ConfigDict, with_pictures: bool) -> None:
    """Each text a document; those of one example are about its one picture."""
    pictures = Pictures(data.image_size, channels=3)
    for split, where, features in examples:
        documents = [document for document in texts(features, data.tfds.text_key, where) if document]
        number = writer.context(pictures.read(features["image"], where)) if with_pictures and documents else None
        for document in documents:
            with writer.may_be_damaged():
                if data.tokenizer != "bytes":
                    check_utf8(document, where)
                writer.add(split, document, number)
    writer.finish(kind="text", context_shape=pictures.shape)


def check_utf8(document: bytes, where: str) -> None:
    """Raises DamagedExample for a document that is no UTF-8."""
    try:
        document.decode()
    except UnicodeDecodeError as error:
        raise DamagedExample(
            f"{where} is not UTF-8 at byte {error.start}: set data.tokenizer = 'bytes', or let data.max_damaged leave"
            " some out"
        ) from error


def texts(features: dict[str, Any], key: str, where: str) -> list[bytes]:
    """The text of a feature or, in a sequence, its texts. Raises DataError where the feature is no text."""
    value: Any = features
    for name in key.split("/"):
        value = value[name]
    if isinstance(value, dict):
        inner = ", ".join(f"{key}/{name}" for name in value)
        raise DataError(f"{where} has no text in {key!r} but features: set data.tfds.text_key to one of {inner}")
    documents = []
    for text in value if isinstance(value, list | np.ndarray) else [value]:
        if not isinstance(text, str | bytes):
            raise DataError(f"{where} has {type(text).__name__} in {key!r}: set data.tfds.text_key to a text")
        documents.append(text.encode() if isinstance(text, str) else text)
    return documents


def write_images(writer: Writer, examples: Iterator[Example], data: ConfigDict, classes: list[str]) -> None:
    """Each image a row of pixels, with its class where there are classes."""
    pictures = Pictures(data.image_size)
    for split, where, features in examples:
        pixels = pictures.read(features["image"], where)
        writer.add(split, pixels.tobytes(), int(features["label"]) if classes else None)
    writer.finish(kind="image", shape=pictures.shape, top=255, classes=classes)
