"""One job a workdir."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from gentrain.errors import ConfigError, WorkdirInUse


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds the workdir for this process, and makes it where it is not there.

    Raises WorkdirInUse naming the owner where another process has it, ConfigError where it cannot be written to. The
    kernel lets go of the lock when its owner dies, however it dies, so nothing stale can be left behind.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / "lock", "a+")  # noqa: SIM115, held for as long as the run goes on
    except OSError as error:
        raise ConfigError(f"cannot write to workdir {workdir}: {error.strerror}; choose another --workdir") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            text = file.read()
            pid, host, since = json.loads(text) if text else ("?", "?", time.time())
            owner = f"process {pid} on {host} for {time.time() - since:.0f} s"
            raise WorkdirInUse(f"{workdir} is in use by {owner}; wait, or choose another --workdir") from None
        except OSError as error:  # a file system that knows no locks
            raise ConfigError(f"cannot lock workdir {workdir}: {error.strerror}; choose another --workdir") from None
        file.truncate(0)
        file.write(json.dumps([os.getpid(), socket.gethostname(), time.time()]))
        file.flush()
        yield
