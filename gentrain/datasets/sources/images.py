"""A folder of images whose subfolders are classes."""

import warnings
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gentrain.datasets import held_out, store
from gentrain.datasets.pictures import differing_sizes, to_pixels
from gentrain.datasets.store import SPLITS, Corpus, Writer
from gentrain.errors import DataError

IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


def read(argument: str, data: ConfigDict) -> Corpus:
    """Splits are given (folders train, valid, test) or held out."""
    root = Path(argument).expanduser()
    if not root.is_dir():
        raise DataError(f"data.name: there is no folder {root}")
    parts = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if "train" not in parts:
        parts = {"train": root}
    given = {
        split: [file for file in sorted(part.rglob("*")) if file.suffix.lower() in IMAGE_FILES]
        for split, part in parts.items()
    }
    every = [file for files in given.values() for file in files]
    if not given["train"]:
        raise DataError(f"data.name: {parts['train']} has no image ({', '.join(IMAGE_FILES)})")
    folders = {file: file.relative_to(part).parts[:-1] for split, part in parts.items() for file in given[split]}
    loose = [file for file in every if not folders[file]]
    if loose and len(loose) < len(every):
        raise DataError(f"{root} has classes (subfolders) but {loose[0]} is in none of them: move it into one")
    classes = [] if loose else sorted({folders[file][0] for file in every})
    fractions = held_out.missing_fractions(given, data)

    def make(folder: Path) -> None:
        channels = 1 if all(read_image(file, header=True) for file in every) else 3
        shape, first = None, every[0]
        with Writer(folder) as writer:
            for split, files in given.items():
                for number, file in enumerate(files):
                    pixels = to_pixels(read_image(file), channels, data.image_size)
                    shape = shape or pixels.shape
                    if pixels.shape != shape:
                        raise DataError(differing_sizes(first, shape, file, pixels.shape))
                    target = store.by_number(number, fractions) if split == "train" else split
                    writer.add(target, pixels.tobytes(), classes.index(folders[file][0]) if classes else None)
            writer.finish(kind="image", shape=shape, top=255, classes=classes)

    identity = {split: store.files_identity(files) for split, files in given.items()}
    return store.read(store.cached(["images", str(root.absolute()), identity, data.image_size, fractions], make))


def read_image(file: Path, header: bool = False) -> Any:
    """A PIL image; with header=True only whether it is grey, without decoding it."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.mode[0] in "IF":
                    raise DataError(f"{file} has values of more than 8 bits (mode {image.mode}): convert it to 8 bits")
                return image.mode in ("1", "L", "LA") if header else image.copy()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file} is too large to be safe ({error}): shrink it first") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} cannot be read as an image ({error}): repair or remove it") from error
