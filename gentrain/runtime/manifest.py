"""What guards a step of a checkpoint: a manifest of its files, and a checksum of each of its arrays.

Nothing is signed: who rewrites arrays, checksums and manifest alike is believed.
"""

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gentrain.files import open_regular, sync, write_json

MANIFEST = "manifest.json"
LONGEST = 2**28  # bytes of a manifest that are read
# Orbax stamps these at the commit itself, after the manifest, and no restore reads them.
NOT_IN_MANIFEST = {MANIFEST, "_CHECKPOINT_METADATA", "commit_success.txt"}
FOREIGN = re.compile(r"\.DS_Store|\._.*|\.nfs.*|Thumbs\.db|desktop\.ini")  # left by file managers and NFS, read by none


def write(root: Path) -> None:
    """Writes the manifest of a step's folder, once all its files are on disk."""
    files = fingerprints(root)
    for name in files:  # a power cut must not leave the rename without the contents
        sync(root / name)
    write_json(root / MANIFEST, {"files": files, "sha256": digest(files)})


def read(root: Path) -> dict[str, Any]:
    """The files that a step should have, and the sha256 of them all."""
    with open_regular(root / MANIFEST, root) as file:
        return json.loads(file.read(LONGEST))


def checksums(leaves: Mapping[str, Any]) -> dict[str, str]:
    """Path -> checksum, of arrays on any mesh and over any processes."""
    sums = jax.device_get([checksum(leaf) for leaf in leaves.values()])
    return {path: f"checksum {total:08x}" for path, total in zip(leaves, sums, strict=True)}


@jax.jit
def checksum(x: jax.Array) -> jax.Array:
    """sum_i (2 i + 1) bits_i modulo 2^32, over the elements' bits in C order: a uint32 scalar.

    Any one element that changes changes it, for its factor is odd. Integers add up to the same in any order, so each
    device sums its own part.
    """
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag])
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = jax.lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32))
    index = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum(x.astype(jnp.uint32) * (2 * index + 1), dtype=jnp.uint32)


def paths_in(root: Path) -> dict[str, Path]:
    """All that the manifest of a step covers, by name: everything below it but folders."""
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*"))}
    return {
        name: path
        for name, path in paths.items()
        if name not in NOT_IN_MANIFEST and not FOREIGN.fullmatch(path.name) and (path.is_symlink() or not path.is_dir())
    }


def sizes_of(root: Path) -> dict[str, str]:
    """File -> its size, without opening it."""
    stats = {name: path.lstat() for name, path in paths_in(root).items()}
    return {name: f"{s.st_size} bytes" if stat.S_ISREG(s.st_mode) else "no regular file" for name, s in stats.items()}


def fingerprints(root: Path) -> dict[str, str]:
    """File -> its size and digest."""
    found = {}
    for name, path in paths_in(root).items():
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found[name] = f"{path.stat().st_size} bytes, sha256 {sha256}"
    return found


def digest(files: Any) -> str:
    """sha256 of what a manifest says of its files, which guards the manifest itself."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def damage(root: Path) -> str:
    """What is wrong with the files of a step; an empty string if nothing is."""
    if root.is_symlink():
        return "it is a link"
    try:
        noted = read(root)
        if noted["sha256"] != digest(noted["files"]):
            return f"{MANIFEST} has changed"
        sizes = {name: text.partition(",")[0] for name, text in noted["files"].items()}
        # Only what is as long as it should be is read: it may be a device, or have holes.
        return differences(sizes, sizes_of(root)) or differences(noted["files"], fingerprints(root))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be checked ({type(error).__name__}: {error})"


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """The first three names at which the two differ, in words; an empty string where they are the same."""
    names = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
    lines = []
    for name in names[:3]:
        lines.append(f"{name}: expected {expected.get(name, 'nothing')}, found {found.get(name, 'nothing')}")
    if len(names) > 3:
        lines.append(f"and {len(names) - 3} more")
    return "; ".join(lines)
