"""One job a workdir."""

import contextlib
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from gentrain.errors import ConfigError, WorkdirInUse


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds the workdir for this process, and makes it where it is not there.

    Raises WorkdirInUse naming the owner where another process has it, ConfigError where it cannot be written to, or
    where the lock is a link or no regular file, whose target is left alone. The kernel lets go of the lock when its
    owner dies, however it dies, so nothing stale can be left behind.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(workdir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if (workdir / "lock").is_symlink():
            raise ConfigError(f"{workdir / 'lock'} is a link and no file of this workdir's: remove it") from None
        raise ConfigError(f"cannot write to workdir {workdir}: {error.strerror}; choose another --workdir") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{workdir / 'lock'} is no regular file: remove it")
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                pid, host, since = json.loads(file.read(4096))
                owner = f"process {pid} on {host} for {time.time() - since:.0f} s"
            except (ValueError, TypeError):  # it has not said yet who it is
                owner = "another process"
            raise WorkdirInUse(f"{workdir} is in use by {owner}; wait, or choose another --workdir") from None
        except OSError as error:  # a file system that knows no locks
            raise ConfigError(f"cannot lock workdir {workdir}: {error.strerror}; choose another --workdir") from None
        file.truncate(0)
        file.write(json.dumps([os.getpid(), socket.gethostname(), time.time()]))
        file.flush()
        yield
