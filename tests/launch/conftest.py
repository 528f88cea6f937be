import sys
import warnings
from types import SimpleNamespace

import pytest

from launch import __main__ as launcher
from tests.helpers import ROOT


@pytest.fixture
def main(capsys, monkeypatch, run_on_one_device):
    """main(*arguments): the launcher as a function, on one device. What it says and returns, as of a process."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back what the launcher changes
    monkeypatch.chdir(ROOT)

    def run(*arguments: str) -> SimpleNamespace:
        capsys.readouterr()
        code = launcher.main([sys.executable, *arguments])
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return run
