"""TFDS sets that were prepared before: found without a network, read without TensorFlow; and how to prepare one."""

import fnmatch
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gentrain.datasets.pictures import Pictures
from gentrain.datasets.store import Writer
from gentrain.errors import DataError

COMMAND = "run: python -m launch.prepare --config=<your config>"
WITHOUT_TENSORFLOW = ("array_record", "parquet")
CHUNK = 256  # examples decoded at a time
Examples = Iterator[tuple[str, str, dict[str, Any]]]  # the split, which example of which set, its features


def home() -> Path:
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()


def find(where: str) -> Path:
    """The folder of a prepared set, named as TFDS does (name, name/config, name:version) or by that folder's path.

    tfds.load would look for an unprepared set on the network, for minutes; this only looks at folders.
    """
    if where.startswith(("/", "~", ".")):
        folder = Path(where).expanduser()
        if not (folder / "dataset_info.json").is_file():
            raise DataError(
                f"{folder} is not a prepared TFDS set: no dataset_info.json (the folder is named like 1.0.0)"
            )
        return folder
    name, _, version = where.partition(":")
    root = home() / name
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
        raise DataError(f"tfds:{where} is not prepared in {home()} (TFDS_DATA_DIR); {COMMAND}")
    return found[-1]


def versions(root: Path, pattern: str) -> list[Path]:
    """Prepared versions in a folder, oldest first."""
    if not root.is_dir():
        return []
    folders = [f for f in root.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", f.name) and fnmatch.fnmatch(f.name, pattern)]
    folders = [folder for folder in folders if (folder / "dataset_info.json").is_file()]
    return sorted(folders, key=lambda folder: [int(number) for number in folder.name.split(".")])


def prepare(where: str) -> Path:
    """Downloads and prepares a TFDS set as array_record, unless it is there. Many sets need TensorFlow for this."""
    import tensorflow_datasets as tfds

    try:
        return find(where)
    except DataError:
        if where.startswith(("/", "~", ".")):
            raise
    try:
        tfds.builder(where, data_dir=home()).download_and_prepare(file_format="array_record")
    except Exception as error:  # whatever a builder raises: the reader needs one line and what to do
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        if not importlib.util.find_spec("tensorflow") and "tensorflow" in repr(error).lower():
            raise DataError(
                f"preparing tfds:{where} needs TensorFlow ({reason}); run: pip install tensorflow-cpu"
            ) from error
        raise DataError(f"cannot prepare tfds:{where} into {home()}: {type(error).__name__}: {reason}") from error
    return find(where)


class Announced(NamedTuple):
    shape: tuple[int, int, int]  # of its images: height, width, channels
    classes: int


def announced(where: str) -> Announced | None:
    """What the code of a TFDS set says of its images, before they are prepared; None of other sets, and of images of
    any size."""
    import tensorflow_datasets as tfds

    try:
        features = dict(tfds.builder(where.partition(":")[0], data_dir=home()).info.features)
    except Exception:  # it is not known, or its code needs TensorFlow
        return None
    shape, label = getattr(features.get("image"), "shape", None), features.get("label")
    if not shape or None in shape:
        return None
    return Announced(tuple(shape), label.num_classes if isinstance(label, tfds.features.ClassLabel) else 0)


def names(folder: Path) -> list[str]:
    """The features of a prepared set, b within a as a/b; read without importing TFDS, which takes seconds."""

    def within(feature: dict[str, Any], path: str) -> Iterator[str]:
        inner = feature.get("sequence", {}).get("feature", feature)
        for name, found in inner.get("featuresDict", {}).get("features", {}).items():
            yield path + name
            yield from within(found, f"{path}{name}/")

    return list(within(json.loads((folder / "features.json").read_text()), ""))


def pictured(folder: Path, data: Any) -> bool:
    """Whether the texts of a set are to have its images as their contexts."""
    return data.conditional and {data.tfds.text_key, "image"} <= set(names(folder))


def convert(folder: Path, out: Path, data: Any) -> None:
    """Reads a prepared set into a raw corpus."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    features, splits = dict(builder.info.features), builder.info.splits
    if "train" not in splits:
        raise DataError(f"{folder} has no split 'train', only: {', '.join(splits) or 'none'}")
    text, labelled = data.tfds.text_key in names(folder), isinstance(features.get("label"), tfds.features.ClassLabel)
    if not text and ("image" not in features or (data.conditional and not labelled)):
        raise DataError(
            f"{folder} has neither the feature data.tfds.text_key = {data.tfds.text_key!r} nor 'image'"
            f"{' with a class label' if data.conditional else ''}; it has: {', '.join(names(folder))}"
        )
    named = {"train": ("train",), "valid": ("validation", "valid", "val"), "test": ("test",)}
    given = {split: name for split, names in named.items() for name in reversed(names) if name in splits}
    total = splits["train"].num_examples
    held = {
        s: int(total * f) for s, f in (("valid", data.valid_fraction), ("test", data.test_fraction)) if s not in given
    }

    def examples() -> Iterator[tuple[str, str, dict[str, Any]]]:
        for split, name in given.items():
            for number, example in enumerate(read(builder, name)):
                behind = total - number  # train's end is held out: ..., valid, test
                if split == "train" and behind <= sum(held.values()):
                    target = "test" if behind <= held.get("test", 0) else "valid"
                else:
                    target = split
                yield target, f"example {number} of {name!r} in {folder}", example

    with Writer(out) as writer:
        if text:
            write_texts(writer, examples(), data, pictured(folder, data))
        else:
            write_images(writer, examples(), data, list(features["label"].names) if labelled else [])


def read(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """All examples of a split in stored order, as numpy."""
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


def write_texts(writer: Writer, examples: Examples, data: Any, with_pictures: bool) -> None:
    """Each text a document; those of one example are about its one picture."""
    pictures = Pictures(data.image_size, channels=3)
    for split, where, example in examples:
        documents = [document for document in texts(example, data.tfds.text_key, where) if document]
        number = writer.context(pictures.read(example["image"], where)) if with_pictures and documents else None
        for document in documents:
            try:
                document.decode() if data.tokenizer != "bytes" else None
            except UnicodeDecodeError as error:
                raise DataError(f"{where} is not UTF-8 at byte {error.start}: set data.tokenizer = 'bytes'") from error
            writer.add(split, document, number)
    writer.finish(kind="text", context_shape=pictures.shape)


def texts(example: dict[str, Any], key: str, where: str) -> list[bytes]:
    """The text or, in a sequence, texts of a feature. Raises DataError where it is of something else."""
    value: Any = example
    for name in key.split("/"):
        value = value[name]
    if isinstance(value, dict):
        inner = ", ".join(f"{key}/{name}" for name in value)
        raise DataError(f"{where} has no text in {key!r} but features: set data.tfds.text_key to one of {inner}")
    found = []
    for text in value if isinstance(value, list | np.ndarray) else [value]:
        if not isinstance(text, str | bytes):
            raise DataError(f"{where} has {type(text).__name__} in {key!r}: set data.tfds.text_key to a text")
        found.append(text.encode() if isinstance(text, str) else text)
    return found


def write_images(writer: Writer, examples: Examples, data: Any, classes: list[str]) -> None:
    pictures = Pictures(data.image_size)
    for split, where, example in examples:
        pixels = pictures.read(example["image"], where)
        writer.add(split, pixels.tobytes(), int(example["label"]) if classes else None)
    writer.finish(kind="image", shape=pictures.shape, top=255, classes=classes)
