"""Steps of variants are timed side by side."""

import re

import pytest

from configs import base
from launch import benchmark


@pytest.fixture
def config(config):
    config.data.name, config.model.name, config.evaluate.evaluators = "world:table", "tabular", ()
    config.mesh.data = -1
    return config


def test_every_variant_has_a_row_and_the_first_is_the_measure(config, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "TURNS", 3)
    config.sweep = base.grid({"data.batch_size": (16, 32)})
    benchmark.benchmark(config)
    out, err = capsys.readouterr()
    header, columns, *rows = out.splitlines()
    assert header == "8 x cpu, medians of 3 turns of 3 steps" and columns.split() == [
        *("wall", "ms", "ratio", "CPU", "ms", "ratio", "variant")
    ]
    number = r"\s+\d+\.\d"
    assert re.fullmatch(rf"{number}\s+1.00{number}\s+1.00  batch_size=16", rows[0])
    assert re.fullmatch(rf"{number}\s+\d+\.\d\d{number}\s+\d+\.\d\d  batch_size=32", rows[1]) and len(rows) == 2
    assert err == "compiled batch_size=16\ncompiled batch_size=32\n"


def test_only_metrics_that_say_what_a_step_did_are_shown():
    shown = ("generator/keep_true", "generator/iterations", "critic/auc", "generator/loss", "generator/nll")
    assert [name for name in shown if benchmark.says_what_was_done(name)] == [*shown[:3]]
