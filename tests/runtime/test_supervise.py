"""The processes of one run on one machine: one exit code for all, and no process left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import ROOT, environment

SUPERVISE = """
import sys
from gentrain.runtime import supervise
supervise.PATIENCE = 1
sys.exit(supervise.supervise([[sys.executable, "-c", child] for child in sys.argv[1:]], GREETING="hello"))
"""
SLEEP = "import time; time.sleep(60)"
TELL_STOP = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
print("ready\\n", end="", flush=True)
time.sleep(60)
"""
IGNORE_STOP = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready\\n", end="", flush=True)
time.sleep(60)
"""


def start(*children: str) -> subprocess.Popen:
    """A supervisor of these programs of Python's."""
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, *children], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )


@pytest.fixture(autouse=True)
def terminal():
    """SIGHUP as a terminal leaves it: whoever started the tests may ignore it, and children would too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("children", "code"),
    [
        (("pass", "pass"), 0),
        (("import os; os.abort()", "pass"), 42),  # as JAX ends a process that lost its peers
        (("import sys; sys.exit(42)", "import sys; sys.exit(4)"), 4),  # what is wrong comes before what followed
        (("import os; os.kill(os.getpid(), 9)", SLEEP), 42),
        ((SLEEP, "import os; os.kill(os.getpid(), 9)"), 42),
        (("import os, sys; sys.exit(os.environ['GREETING'] != 'hello')",), 0),
    ],
)
def test_a_supervisor_says_what_ended_the_run(children, code):
    with start(*children) as supervisor:
        assert supervisor.wait(timeout=30) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_all_as_sigterm_and_a_second_one_ends_them(number):
    with start(TELL_STOP, TELL_STOP) as supervisor:
        assert [supervisor.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        supervisor.send_signal(number)
        assert supervisor.wait(timeout=30) == 42
    with start(IGNORE_STOP) as supervisor:
        assert supervisor.stdout.readline() == "ready\n"
        supervisor.send_signal(number)
        time.sleep(0.2)
        assert supervisor.poll() is None
        supervisor.send_signal(number)
        assert supervisor.wait(timeout=30) == 42


def test_a_signal_before_all_have_met_ends_them_at_once():
    ready = "print('ready\\n', end='', flush=True); "  # a single write, which no other cuts in two
    children = f"supervise.supervise([[sys.executable, '-c', child] for child in {[ready + SLEEP, IGNORE_STOP]}])"
    program = f"import sys; from gentrain.runtime import supervise; sys.exit({children})"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as supervisor:
        assert [supervisor.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(timeout=10) == 42


def test_children_do_not_outlive_a_supervisor_that_is_killed():
    with start("import os, time; print(os.getpid(), flush=True); time.sleep(60)") as supervisor:
        pid = int(supervisor.stdout.readline())
        supervisor.kill()
        supervisor.wait()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
