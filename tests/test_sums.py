"""Means add up before they are divided, and every metric has one declaration."""

import math

import pytest

from gentrain import plugins, sums
from gentrain.reporting import report
from gentrain.sums import Metric, Sum


def test_sums_add_before_they_divide():
    added = sums.add([{"nll": Sum(6.0, 2.0)}, {"nll": Sum(1.0, 8.0), "other": Sum(0.0, 0.0)}])
    assert sums.mean(added["nll"]) == 0.7 and math.isnan(sums.mean(added["other"]))


def test_no_more_than_one_result_runs_ahead(monkeypatch):
    waited = []
    monkeypatch.setattr(sums.jax, "block_until_ready", waited.append)
    assert list(sums.paced("abc")) == ["a", "b", "c"] and waited == [None, "a", "b"]


def test_a_name_is_declared_by_itself_or_by_the_first_pattern_that_it_fits():
    each, exactly, standard_error, nll = (Metric("nats", better, "") for better in ("lower", None, None, "lower"))
    metrics = {"exact/njs@<pi>": each, "exact/<name>_se": standard_error, "exact/njs@0.5": exactly, "<split>/nll": nll}
    assert sums.declared("exact/njs@0.25", metrics) == ("exact/njs@<pi>", each)
    assert sums.declared("exact/njs@0.5", metrics) == ("exact/njs@0.5", exactly)
    assert sums.declared("exact/nll_test_se", metrics) == ("exact/<name>_se", standard_error)
    for undeclared in ("exact/njs", "exact/njs@", "exact/a/b_se", "njs@1", "exact.njs@1"):
        assert sums.declared(undeclared, metrics) is None, undeclared
    for split in ("train", "valid", "test"):
        assert sums.declared(f"{split}/nll", metrics) == ("<split>/nll", nll)
    assert sums.declared("generator/nll", metrics) is None  # a player is no split of the data


@pytest.mark.parametrize("evaluator", plugins.names("evaluators"))
def test_every_evaluator_declares_units_and_directions(evaluator):
    metrics = report.evaluator_metrics({"evaluate.evaluators": [evaluator]})
    assert metrics
    for metric in metrics.values():
        assert isinstance(metric, Metric) and metric.unit and metric.meaning
        assert metric.better in ("lower", "higher", None)
        assert not (metric.level and metric.better)  # what others are compared with is no result
