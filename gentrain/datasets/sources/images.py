"""A folder of images whose subfolders are classes."""

import warnings
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gentrain.datasets import held_out, store
from gentrain.datasets.pictures import sizes_differ, to_pixels
from gentrain.datasets.store import SPLITS, Corpus, Writer
from gentrain.errors import DamagedExample, DataError
from gentrain.files import open_regular

IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # whatever the name: PostScript would run Ghostscript


def read(argument: str, data: ConfigDict) -> Corpus:
    """The images below a folder, all in colour if one of them is.

    Splits are given (folders train, valid, test) or held out. Raises DataError for images that differ in size and are
    not resized, and for more files that cannot be read as images than data.max_damaged allows.
    """
    root = Path(argument).expanduser()
    folders = split_folders(root)
    files = {split: image_files(folder) for split, folder in folders.items()}
    if not files["train"]:
        raise DataError(f"data.name: {folders['train']} has no image ({', '.join(IMAGE_FILES)})")
    class_of = {file: class_name(file, folder) for split, folder in folders.items() for file in files[split]}
    classes = class_names(root, class_of)
    fractions = held_out.missing_fractions(files, data)

    def make(folder: Path) -> None:
        with Writer(folder, max_damaged=data.max_damaged) as writer:
            grey = {}
            for file in class_of:
                with writer.may_be_damaged():
                    grey[file] = is_grey(file, root)
            channels, shape, first = 1 if all(grey.values()) else 3, None, None
            for split, paths in files.items():
                for number, file in enumerate(paths):
                    if file not in grey:
                        continue
                    target = held_out.split_by_number(number, fractions) if split == "train" else split
                    with writer.may_be_damaged():
                        pixels = to_pixels(read_image(file, root), channels, data.image_size)
                        if shape is None:
                            shape, first = pixels.shape, file
                        if pixels.shape != shape:
                            raise DataError(sizes_differ(first, shape, file, pixels.shape))
                        writer.add(target, pixels.tobytes(), classes.index(class_of[file]) if classes else None)
            writer.finish(kind="image", shape=shape, top=255, classes=classes)

    identity = {split: store.files_identity(paths) for split, paths in files.items()}
    return store.read(
        store.cached(["images", str(root.absolute()), identity, data.image_size, fractions, data.max_damaged], make)
    )


def split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that is given; the root is train where that is not. Raises DataError without a root."""
    if not root.is_dir():
        raise DataError(f"data.name: there is no folder {root}")
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    return folders if "train" in folders else {"train": root}


def image_files(folder: Path) -> list[Path]:
    """The images at any depth of a folder."""
    return [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in IMAGE_FILES]


def class_name(file: Path, folder: Path) -> str:
    """The subfolder of a split's folder that an image is in, at any depth; an empty string where it is in none."""
    parents = file.relative_to(folder).parts[:-1]
    return parents[0] if parents else ""


def class_names(root: Path, class_of: dict[Path, str]) -> list[str]:
    """The names of the classes in order, none where no image is in a subfolder. Raises DataError where some are not."""
    loose = [file for file, name in class_of.items() if not name]
    if loose and len(loose) < len(class_of):
        raise DataError(f"{root} has classes (subfolders) but {loose[0]} is in none of them: move it into one")
    return [] if loose else sorted(set(class_of.values()))


def is_grey(file: Path, root: Path) -> bool:
    """Whether an image has no colours, by its header."""
    return read_image(file, root, header=True)


def read_image(file: Path, root: Path, header: bool = False) -> Any:
    """A PIL image; with header=True only whether it is grey, without decoding it.

    Raises DamagedExample for what is no image of FORMATS, is dangerously large, has values of more than 8 bits, is no
    regular file or leads out of the folder root.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_regular(file, root) as content, Image.open(content, formats=FORMATS) as image:
                if image.mode[0] in "IF":
                    raise DamagedExample(
                        f"{file} has values of more than 8 bits (mode {image.mode}): convert it to 8 bits"
                    )
                return image.mode in ("1", "L", "LA") if header else image.copy()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DamagedExample(f"{file} is too large to be safe ({error}): shrink it first") from error
    except (OSError, SyntaxError, ValueError) as error:
        why = "it is no " + ", ".join(FORMATS) if isinstance(error, Image.UnidentifiedImageError) else error
        raise DamagedExample(
            f"{file} cannot be read as an image ({why}): repair or remove it, or let data.max_damaged leave some out"
        ) from error
