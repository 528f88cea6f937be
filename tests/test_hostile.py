"""Data, checkpoints and workdirs are not trusted: nothing in them is run, read outside its folder, or waited for."""

import io
import math
import os
import shutil
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from configs import base
from gentrain import worlds
from gentrain.datasets.build import build
from gentrain.errors import ConfigError, DataError
from gentrain.files import open_regular
from gentrain.options.check import validate
from gentrain.runtime.lock import lock
from gentrain.worlds import oracle, points, table
from tests.helpers import ROOT, environment


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def in_time():
    """What hangs would hang here, so this tells only of what is slow."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 60


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """The file that a Ghostscript which is run leaves."""
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/canary\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow has not looked for it yet
    return tmp_path / "canary"


@pytest.fixture
def pictures(config, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(folder / f"{number}.png")
    config.data.name, config.data.valid_fraction, config.data.test_fraction = f"images:{folder}", 0.0, 0.0
    build(config, None)
    return config, folder


@pytest.fixture
def texts(config, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("one line\n" * 30)
    config.data.name, config.data.text.unit = f"text:{folder}", "line"
    config.data.valid_fraction = config.data.test_fraction = 0.0
    build(config, None)
    return config, folder


def huge_png() -> bytes:
    """The header of a PNG of 50,000 x 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(50_001))), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        png += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png


def postscript() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(content, "EPS")
    return content.getvalue()


def test_a_picture_is_of_a_format_that_is_meant_whatever_it_is_called(pictures, canary):
    config, folder = pictures
    (folder / "x.png").write_bytes(postscript())
    with pytest.raises(DataError, match=r"x\.png cannot be read as an image \(it is no PNG, JPEG"):
        build(config, None)
    assert not canary.exists()
    with Image.open(folder / "x.png") as image, pytest.raises(OSError, match=r".*"):
        image.load()  # as a program would that lets Pillow choose
    assert canary.exists()


def test_a_picture_that_says_it_is_huge_is_refused_before_it_is_allocated(pictures):
    config, folder = pictures
    (folder / "x.png").write_bytes(huge_png())
    with pytest.raises(DataError, match=r"x\.png is too large to be safe"):
        build(config, None)


def outside(path, suffix):
    target = path.parent.parent / f"secret{suffix}"
    shutil.copy(next(path.parent.glob(f"*{suffix}")), target)
    path.symlink_to(target)


def folder_outside(path, suffix):
    target = path.parent.parent / "secrets"
    shutil.copytree(path.parent, target)
    (path.parent / "train").symlink_to(target)


def device(path, suffix):
    path.symlink_to("/dev/zero")


def pipe(path, suffix):
    os.mkfifo(path)


def nothing(path, suffix):
    path.symlink_to(path.parent / "not there")


def circle(path, suffix):
    path.symlink_to(path)


def folder(path, suffix):
    path.mkdir()


@pytest.mark.parametrize("plant", [outside, folder_outside, device, pipe, nothing, circle, folder])
@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_only_regular_files_inside_the_folder_that_was_named_are_read(request, kind, plant):
    config, root = request.getfixturevalue(kind)
    suffix = ".png" if kind == "pictures" else ".txt"
    plant(root / f"x{suffix}", suffix)
    with pytest.raises(DataError, match=r"leads out of|is no regular file|cannot read .*x\.") as raised:
        build(config, None)
    assert "\n" not in str(raised.value)


def test_links_within_the_folder_and_a_folder_that_is_a_link_are_read(texts, tmp_path):
    config, root = texts
    (root / "b.txt").symlink_to(root / "a.txt")
    (tmp_path / "link").symlink_to(root)
    config.data.name = f"text:{tmp_path / 'link'}"
    assert build(config, None).summary["documents"] == 60


@pytest.mark.parametrize("unit", ["line", "document"])
def test_a_file_with_a_hole_that_no_memory_would_hold_is_refused(texts, unit):
    config, root = texts
    config.data.text.unit = unit
    os.truncate(root / "a.txt", 2**43)
    with pytest.raises(DataError, match=rf"a\.txt has a {unit} of more than"):
        build(config, None)


def test_a_pipe_is_not_waited_for_and_a_file_is_opened_where_it_lies(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is no regular file"):
        open_regular(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    with open_regular(tmp_path / "file", tmp_path) as file:
        assert file.read() == b"x"


def npz(path: Path, **members: bytes) -> str:
    weights = oracle.random_weights(np.random.default_rng(0), vocab=5, width=3)
    np.savez(path, **weights)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in (content | {f"{name}.npy": member for name, member in members.items()}).items():
            archive.writestr(name, member)
    return str(path)


def header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": descr, "fortran_order": False, "shape": shape})
    return content.getvalue()


def array(value: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, value)
    return content.getvalue()


class Runs:
    """What a pickle runs when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_weights_are_plain_finite_arrays_of_the_size_that_they_say(tmp_path):
    path = tmp_path / "w.npz"
    assert oracle.Oracle(oracle.read_weights(npz(path))).vocab == 5
    for hostile, words in (
        (header((10**6, 10**6)), "says it is float64 of shape"),  # 8 TB
        (header((2**62, 2**62)), "says it is float64 of shape"),
        (header((-1, 8)), "no readable .npz"),
        (header((5,)), "no readable .npz"),  # and nothing after it
        (array(np.array([Runs(tmp_path / "canary")], object)), "says it is object"),
        (b"\x93NUMPY\x09\x00", "has format"),
        (b"", "no readable .npz"),
    ):
        with pytest.raises(DataError, match=words) as raised:
            oracle.read_weights(npz(path, bo=hostile))
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "canary").exists()
    for number in (np.nan, np.inf):
        with pytest.raises(DataError, match="array bo has numbers that are not finite"):
            oracle.Oracle(oracle.read_weights(npz(path, bo=array(np.full(5, number)))))
    path.unlink()
    os.mkfifo(path)
    for other in (path, "/dev/zero", tmp_path):
        with pytest.raises(DataError, match="is no regular file"):
            oracle.read_weights(str(other))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_of_a_world_are_finite(number):
    one = np.eye(1)[None]
    for make in (
        lambda: points.GaussianMixture(np.array([number, 0.5]), np.zeros((2, 1)), np.ones((2, 1, 1))),
        lambda: points.GaussianMixture(np.ones(1), np.array([[number]]), one),
        lambda: points.gaussian(np.zeros(1), np.array([[number]])),
        lambda: table.Table(np.array([number, 1.0])),
        lambda: worlds.Markov(np.array([number, 1.0]), np.eye(2), 3),
        lambda: worlds.HiddenMarkov(np.ones(1), np.eye(1), np.array([[number, 1.0]]), 3),
    ):
        with pytest.raises(ConfigError):
            make()
    config = base.get_config()
    config.data.name = "mixture"
    for weight in (number, "1"):
        config.data.mixture.sources = (("surnames", weight, 0),)
        with pytest.raises(ConfigError, match="finite weight"):
            validate(config)


def test_a_lock_that_is_a_link_or_a_pipe_is_an_error_and_its_target_stays(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match=r"run/lock is a link"):
        lock(tmp_path / "run").__enter__()
    assert (tmp_path / "target").read_text() == "mine"
    (tmp_path / "run" / "lock").unlink()
    os.mkfifo(tmp_path / "run" / "lock")
    with pytest.raises(ConfigError, match=r"run/lock is no regular file"):
        lock(tmp_path / "run").__enter__()


READ = """
import sys
from configs import base
from gentrain.datasets.build import build
from gentrain.errors import DataError
for name in sys.argv[1:]:
    config = base.get_config()
    config.data.name, config.data.length = name, 16
    try:
        build(config, None)
    except DataError:
        print("refused")
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_no_program_is_started_and_no_file_outside_is_opened(pictures, texts, canary, tmp_path):
    (tmp_path / "secret.txt").write_text("secret\n" * 30)
    (pictures[1] / "x.png").write_bytes(postscript())
    (texts[1] / "x.txt").symlink_to(tmp_path / "secret.txt")
    trace = tmp_path / "trace"
    calls = "trace=openat,open,execve"
    command = ["strace", "-f", "-e", calls, "-o", str(trace), sys.executable, "-c", READ]
    done = subprocess.run(
        [*command, f"images:{pictures[1]}", f"text:{texts[1]}"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["refused", "refused"]
    calls = trace.read_text().splitlines()
    assert sum("execve(" in call for call in calls) == 1  # Python itself
    assert not [call for call in calls if "secret" in call]
    assert not canary.exists()
