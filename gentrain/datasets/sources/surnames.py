"""The surnames of the US Census."""

from importlib import metadata
from pathlib import Path

from ml_collections import ConfigDict

from gentrain.datasets import store
from gentrain.datasets.store import Corpus, Writer
from gentrain.errors import DataError


def read(argument: str, data: ConfigDict) -> Corpus:
    """The surnames of the US Census, lower-case, commonest first."""
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
                writer.add(store.by_text(name), name.encode())
            writer.finish(kind="text")

    return store.read(store.cached(["surnames", store.files_identity([file])], make))
