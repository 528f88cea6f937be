"""Works of fixed shapes, timed in turns."""

import json
import re
import subprocess
import sys

import pytest

from gentrain.models import images
from launch import benchmark, huge_pages
from launch.suites import ours, suite, timing, works
from launch.suites.works import ImageShape, Shape, Work
from tests.helpers import ROOT

TINY = Shape("lstm", 8, 1, 0, 0, 11, 8, 5)
TINY_IMAGES = ImageShape("dcgan", width=4, side=8, latent=3, batch=8)
TINY_TRANSFORMER = Shape("transformer", 8, 1, 2, 16, 11, 8, 5)


@pytest.mark.parametrize(
    "work",
    [
        Work("train", TINY, {}),
        Work("train", TINY, works.SCHEDULED),
        Work("train_images", TINY_IMAGES, works.GAN),
        Work("sample", TINY_TRANSFORMER, {}),
        Work("search", TINY_TRANSFORMER, {}),
    ],
)
def test_a_work_is_done_again_and_again_and_knows_its_sizes(work):
    do, numbers = ours.prepare(work)
    do()
    do()
    assert numbers["parameters"] > 0 and numbers["temporary_mb"] > 0 and numbers["compile_s"] > 0


def test_the_matmuls_of_a_step_are_six_flops_a_parameter_and_token():
    vocab, width, mlp = 11, 8, 16
    matrices = 4 * width**2 + 3 * width * mlp + width * vocab
    assert TINY_TRANSFORMER.gflop == pytest.approx(6e-9 * 8 * 5 * matrices)
    assert TINY.gflop == pytest.approx(6e-9 * 8 * 5 * (8 * width**2 + width * vocab))


def test_a_work_knows_the_resolutions_that_models_of_images_have():
    for side in (8, 28, 32, 36):
        ours = images.scales((side, side, 1), TINY_IMAGES.width)
        assert TINY_IMAGES._replace(side=side).scales == [(rows, channels) for rows, _, channels in ours]


@pytest.fixture
def contenders(monkeypatch):
    """Contenders that take as many ms as their name says, without processes."""

    def race(names, work, cores, devices=1, tensorflow=None):
        known = {"gentrain": 10.0, "gpt2": 15.0, "matmul": 2.0}
        rows = [{"contender": name, "cpu_ms": known.get(name), "wall_ms": 9.0, "parameters": 7} for name in names]
        rows = [row if row["cpu_ms"] else {"contender": row["contender"], "missing": "no module"} for row in rows]
        rows[0] |= {"gflop": 0.5, "temporary_mb": float(work.shape.batch), "trace_s": 0.1, "compile_s": 0.2}
        return rows

    monkeypatch.setattr(timing, "race", race)
    return race


def test_speeds_are_by_our_time_and_who_is_missing_is_told(contenders, tmp_path, capsys):
    only = "--only=transformer, width 128"
    assert benchmark.main(["benchmark", "--suite=peers", only, f"--out={tmp_path}"]) == 0
    ours_line, gpt2, llama = capsys.readouterr().out.splitlines()[1:]
    assert "gentrain" in ours_line and re.search(r"gpt2 .* 15.0 .* 1.50 +1.15$", gpt2)
    assert llama.endswith("not installed: no module")
    rows = json.loads((tmp_path / "peers.json").read_text())
    # 10 ms, at the rate of half a GFLOP in 2 ms.
    assert rows[0]["of_matmul_rate"] == pytest.approx(works.SMALL.gflop / 0.010 / 250)
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "peers.txt").read_text()


def test_peers_that_need_tensorflow_run_under_the_interpreter_that_is_named(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "{\\"missing\\": \\"$1 $2 $3\\"}"\n')
    python.chmod(0o755)
    (row,) = timing.race(("tfa_scheduled",), Work("train", TINY, works.SCHEDULED), (0,), tensorflow=str(python))
    assert row == {"contender": "tfa_scheduled", "missing": "-m launch.suites.contender tfa_scheduled"}


@pytest.mark.parametrize("name", works.TENSORFLOW)
def test_what_that_interpreter_reads_needs_no_package(name):
    assert any(name in work.peers for work in works.WORKS.values())
    command = [sys.executable, "-S", "-m", "launch.suites.contender", name, json.dumps(Work("train", TINY, {})), "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"missing": "No module named 'tensorflow'"}, done.stderr


def test_an_interpreter_that_is_not_there_is_one_line(capsys):
    assert benchmark.main(["benchmark", "--suite=peers", "--tensorflow=/nowhere/python"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "--tensorflow=/nowhere/python" in told and "requirements-bench-tensorflow.txt" in told


def test_the_limit_is_told_of_training_steps_alone(contenders, capsys):
    assert suite.main(["--suite=limit", "--only=transformer"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 3 and all("%" in line and "sampling" not in line for line in lines)


def test_the_seconds_to_the_first_step_are_those_of_the_configs_that_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(suite.first_step, "main", lambda argv: asked.extend(argv[1:]) or 0)
    assert suite.main(["--suite=compile", "--only=scale"]) == 0
    assert [config.rpartition("/")[2] for config in asked] == ["scale.py"]


def test_growth_has_an_exponent_of_each_size(contenders, tmp_path, capsys):
    assert benchmark.main(["benchmark", "--suite=growth", "--only=lstm", f"--out={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    flat = "tracing and compiling ~"
    assert f"lstm, batch: time ~ batch^0.00, temporary memory ~ batch^1.00, {flat} batch^0.00" in lines
    assert f"lstm, width: time ~ width^0.00, temporary memory ~ width^0.00, {flat} width^0.00" in lines
    assert (tmp_path / "growth.png").exists() and len(json.loads((tmp_path / "growth.json").read_text())) == 20


@pytest.mark.parametrize(
    ("environment", "libc", "pages", "expected"),
    [
        ({}, ("glibc", "2.36"), "always [madvise] never", True),
        ({"JAX_PLATFORMS": "cpu"}, ("glibc", "2.36"), "[always] madvise never", True),
        ({"JAX_PLATFORMS": "cuda"}, ("glibc", "2.36"), "always [madvise] never", False),
        ({"GLIBC_TUNABLES": ""}, ("glibc", "2.36"), "always [madvise] never", False),
        ({}, ("glibc", "2.31"), "always [madvise] never", False),
        ({}, ("", ""), "always [madvise] never", False),
        ({}, ("glibc", "2.36"), "always madvise [never]", False),
    ],
)
def test_huge_pages_are_asked_for_where_they_help_and_nothing_else_is_chosen(
    monkeypatch, tmp_path, environment, libc, pages, expected
):
    file = tmp_path / "enabled"
    file.write_text(pages)
    monkeypatch.setattr(huge_pages, "HUGE_PAGES", file)
    monkeypatch.setattr(huge_pages, "ACCELERATORS", ())
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: libc)
    assert huge_pages.helps(environment) == expected


def test_an_unknown_suite_is_an_error_that_names_those_there_are(capsys):
    with pytest.raises(SystemExit):
        suite.main(["--suite=speed"])
    assert "steps" in capsys.readouterr().err
