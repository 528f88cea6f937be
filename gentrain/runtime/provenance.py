"""Where a run's numbers come from: date, command, code, packages and hardware."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import jax

from gentrain import files

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")


def write(workdir: Path) -> None:
    """Writes WORKDIR/provenance.json: what a reader of the run's numbers wants to know of how they came about."""
    devices = jax.devices()
    files.write_json(
        workdir / "provenance.json",
        {
            "date": time.strftime("%Y-%m-%d"),
            "command": shlex.join(["python", "-m", "launch", *sys.argv[1:]]),
            "commit": commit(Path(__file__).parents[2]),
            "hardware": f"{len(devices)} x {devices[0].device_kind}, {os.cpu_count()} CPU cores",
            "malloc": os.environ.get("GLIBC_TUNABLES", ""),
            "python": platform.python_version(),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        },
    )


def commit(folder: Path) -> str:
    """The commit of a checkout, with a + where files have changed since; '' outside of one."""
    try:
        changed = git(folder, "status", "--porcelain", "--untracked-files=no")
        return git(folder, "rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def git(folder: Path, *arguments: str) -> str:
    """What a git command says. Raises OSError or SubprocessError where there is no git, or no repository."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
