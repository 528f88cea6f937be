"""The surnames of the US Census."""

from importlib import metadata
from pathlib import Path

from ml_collections import ConfigDict

from gentrain.datasets import held_out, store
from gentrain.datasets.store import Corpus, Writer
from gentrain.errors import DataError

VERSION = "0.3.0"  # of package names


def read(argument: str, data: ConfigDict) -> Corpus:
    """Every name a document, lower-case, commonest first."""
    file = locate()

    def make(folder: Path) -> None:
        with Writer(folder) as writer:
            for line in file.read_text().splitlines():
                name = line.split()[0].lower()
                writer.add(held_out.split_by_text(name), name.encode())
            writer.finish(kind="text")

    return store.read(store.cached(["surnames", store.files_identity([file])], make))


def locate() -> Path:
    """The file of names. Raises DataError where package names is missing, or of another version."""
    message = f"the surnames come with the package names {VERSION}; run: pip install names=={VERSION}"
    try:
        package = metadata.distribution("names")
    except metadata.PackageNotFoundError:
        raise DataError(message) from None
    file = Path(str(package.locate_file("names/dist.all.last")))
    if package.version != VERSION or not file.exists():
        raise DataError(message)
    return file
