"""One job a workdir, and what a second one is told."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from gentrain.errors import ConfigError, WorkdirInUse
from gentrain.runtime.lock import lock
from tests.helpers import ROOT, environment

HOLD = """
import sys, time
from pathlib import Path
from gentrain.runtime.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_held_workdir_names_its_owner_and_is_free_again_afterwards(tmp_path):
    workdir = tmp_path / "new" / "run"
    with lock(workdir):
        with pytest.raises(WorkdirInUse, match=f"process {os.getpid()} on .* for 0 s; wait, or choose another"):
            lock(workdir).__enter__()
        assert WorkdirInUse.exit_code == 6
    with lock(workdir):
        pass


def test_a_lock_dies_with_its_owner_however_it_dies(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(WorkdirInUse, match=f"process {owner.pid} "):
            lock(tmp_path).__enter__()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    with lock(tmp_path):  # the file that says who held it is still there
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_an_owner_that_has_not_yet_said_who_it_is_is_an_owner(tmp_path):
    with lock(tmp_path):
        (tmp_path / "lock").write_text("")
        with pytest.raises(WorkdirInUse, match="in use by another process; wait"):
            lock(tmp_path).__enter__()


def test_a_workdir_that_cannot_be_written_to_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write to workdir .*file.*; choose another --workdir"):
        lock(tmp_path / "file").__enter__()


def test_a_file_system_without_locks_is_a_config_error(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with pytest.raises(ConfigError, match=r"cannot lock workdir .*No locks available; choose another"):
        lock(tmp_path).__enter__()
