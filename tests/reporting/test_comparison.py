"""The page across a sweep says who was best at what, where that can be said."""

import json

import numpy as np
import pytest

from gentrain.errors import ReportError, Stopped
from gentrain.reporting import comparison, plots, report
from gentrain.reporting.figures import js_dial


@pytest.fixture
def compare(tmp_path, config, write_run, monkeypatch):
    """compare({variant: (changes to the config, what was reached)}) -> report.json and the page, without curves."""
    monkeypatch.setattr(plots, "curves", lambda lines, path, **words: path.write_bytes(b""))

    def run(variants):
        for name, (changes, reached) in variants.items():
            write_run(tmp_path / name, [{"step": 1, **reached}], {"data.name": "same", **changes})
            report.write(tmp_path / name)
        page = comparison.compare(config, tmp_path, list(variants)).read_text()
        return json.loads((tmp_path / "report.json").read_text()), page

    return run


@pytest.mark.parametrize(
    ("data", "best"), [({}, {"valid/nll": "b"}), ({"data.name": "other"}, {}), ({"data.tokenizer": "words"}, {})]
)
def test_a_sweep_names_the_best_of_those_that_saw_the_same_data(compare, data, best):
    variants = {
        name: ({"data.tokenizer": "chars", **changes}, {"valid/nll": value, "generator/grad_norm": 1 / value})
        for name, value, changes in (("a", 2.0, {}), ("b", 1.5, data))
    }
    summary, page = compare(variants)
    assert summary["best"] == best
    assert ('class="number best">1.5<' in page) == bool(best) and 'href="b/report.html"' in page


def test_errors_are_best_when_low_and_bleu_when_high(compare):
    def rates(token, bleu):
        return {"valid/token_error_rate": token, "valid/sequence_error_rate": 1 - token, "valid/bleu": bleu}

    summary, _ = compare({"a": ({"x": 1}, rates(0.2, 30.0)), "b": ({"x": 2}, rates(0.3, 20.0))})
    assert summary["best"] == {
        "valid/token_error_rate": "a",
        "valid/sequence_error_rate": "b",
        "valid/bleu": "a",
    }
    assert summary["over_seeds"] == {}


WORLD = {"evaluate.evaluators": ["exact", "modes", "fidelity"]}
LOW = {"exact/excess_njs": 0.1, "fidelity/frechet": 2.0, "modes/captured": 5, "exact/nll_oracle": 1.0}
HIGH = {"exact/excess_njs": 0.4, "fidelity/frechet": 3.0, "modes/captured": 8, "exact/nll_oracle": 4.0}
NEUTRAL = ("exact/entropy", "exact/entropy_sampled", "exact/excess_njs_se", "generator/nll", "generator/loss")
BEST = {"exact/excess_njs": "low", "fidelity/frechet": "low", "modes/captured": "high"}


def test_best_is_said_by_the_declared_direction_and_of_no_neutral_metric(compare):
    low, high = (values | dict.fromkeys(NEUTRAL, value) for values, value in ((LOW, 1.0), (HIGH, 2.0)))
    summary, page = compare({"low": (WORLD, low), "high": (WORLD | {"steps": 3}, high)})
    assert summary["best"] == BEST
    winners = page.split("<h2>Best at</h2>")[1].split("</ul>")[0]
    assert winners == "<ul>" + "".join(f"<li>{metric}: {name}</li>" for metric, name in sorted(BEST.items()))
    assert "<th>exact/nll_oracle</th>" in page and "<th>generator/nll</th>" not in page  # shown, or not even that


def test_over_seeds_too_best_is_said_by_the_declared_direction_and_of_no_neutral_metric(compare):
    low, high = (values | dict.fromkeys(NEUTRAL, value) for values, value in ((LOW, 1.0), (HIGH, 2.0)))
    variants = {f"low,seed={seed}": (WORLD | {"seed": seed}, low) for seed in range(2)}
    variants |= {f"high,seed={seed}": (WORLD | {"seed": seed, "steps": 3}, high) for seed in range(2)}
    summary, page = compare(variants)
    assert summary["over_seeds"].keys() == {"low", "high"}
    winners = page.split("<h2>Best at</h2>")[1].split("</ul>")[0]
    assert winners == "<ul>" + "".join(f"<li>{metric}: {name}</li>" for metric, name in sorted(BEST.items()))
    table = page.split("<h2>Over seeds</h2>")[1].split("<h2>Last values</h2>")[0]
    assert table.count("number best") == len(BEST)


def test_variants_that_differ_in_their_seed_only_are_told_by_mean_and_spread(compare):
    def variant(width, seed, nll, **more):
        return {"width": width, "seed": seed, "init_from": f"runs/{seed}"}, {"valid/nll": nll, **more}

    summary, page = compare(
        {
            "width=8,seed=0": variant(8, 0, 1.0, **{"valid/bleu": 50.0}),
            "width=8,seed=1": variant(8, 1, 3.0, **{"valid/bleu": 54.0}),
            "width=8,seed=2": variant(8, 2, 2.6),
            "width=16,seed=0": variant(16, 0, 2.0),
            "width=16,seed=1": variant(16, 1, 2.1),
            "width=32,seed=0": variant(32, 0, 0.5),
        }
    )
    assert summary["over_seeds"] == {
        "width=8": {
            "valid/nll": [pytest.approx(2.2), pytest.approx(np.sqrt((1.44 + 0.64 + 0.16) / 2)), 3],
            "valid/bleu": [52.0, pytest.approx(np.sqrt(8)), 2],
        },
        "width=16": {"valid/nll": [pytest.approx(2.05), pytest.approx(0.05 * np.sqrt(2)), 2]},
    }
    assert summary["best"]["valid/nll"] == "width=32,seed=0"  # of single runs; of the groups the steadier is better
    table = page.split("Over seeds")[1]
    assert 'class="number best">2.05 ± 0.07071 (2)<' in table and 'class="number">2.2 ± 1.058 (3)<' in table


def test_seeds_alone_are_one_group(compare):
    summary, page = compare({f"seed={seed}": ({"seed": seed}, {"valid/nll": float(seed)}) for seed in range(2)})
    assert summary["over_seeds"] == {"all": {"valid/nll": [0.5, pytest.approx(np.sqrt(0.5)), 2]}}
    assert "best" not in page.split("Over seeds")[1].split("Last values")[0]  # there is nothing to be better than


def test_the_figures_that_are_asked_for_come_first_and_their_numbers_are_kept(compare, config, tmp_path):
    config.report.figures = ("rewards",)
    summary, page = compare({"a": ({"x": 1}, {"valid/nll": 1.0}), "b": ({"x": 2}, {"valid/nll": 2.0})})
    assert summary["figures"]["rewards"]["log_ratio"] and (tmp_path / "plots" / "rewards.png").exists()
    assert page.index('alt="rewards"') < page.index("Best at")


def test_curves_are_drawn_of_what_has_a_best_and_was_measured_more_than_twice(tmp_path, config, write_run, monkeypatch):
    for name, steps in (("a", 4), ("b", 2)):
        lines = [{"step": step, "valid/nll": 2.0 / (step + 1), "valid/perplexity": 1.0} for step in range(steps)]
        write_run(tmp_path / name, lines, {"data.name": "same"})
        report.write(tmp_path / name)
    drawn, draw = {}, plots.curves
    monkeypatch.setattr(plots, "curves", lambda lines, path, **words: drawn.update(lines) or draw(lines, path, **words))
    page = comparison.compare(config, tmp_path, ["a", "b"]).read_text()
    assert drawn == {"a": ([0, 1, 2, 3], [2.0, 1.0, 2 / 3, 0.5])}
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["valid_nll.png"]  # the perplexity says the same
    assert page.count("data:image/png") == 1


def test_variants_show_their_newest_samples(tmp_path, config, write_run):
    for name in ("a", "b"):
        write_run(tmp_path / name, [{"step": 1, "valid/nll": 1.0}], {"data.name": "same"})
        report.write(tmp_path / name)
    (tmp_path / "b" / "samples").mkdir()
    for step in (1, 20):
        (tmp_path / "b" / "samples" / f"{step:07d}.txt").write_text(f"<sample of {step}>")
    (tmp_path / "b" / "samples" / "Thumbs.db").write_bytes(b"\xff")
    page = comparison.compare(config, tmp_path, ["a", "b"]).read_text()
    assert "&lt;sample of 20&gt;" in page and "sample of 1&gt;" not in page and page.count("<pre>") == 1


def test_what_there_is_is_shown_and_what_failed_is_named(tmp_path, config, write_run):
    write_run(tmp_path / "a", [{"step": 1, "valid/nll": 1.0}])
    report.write(tmp_path / "a")
    for names in (["a"], []):
        page = comparison.compare(config, tmp_path, names, {"b": "Diverged: <nan> (exit code 3)"}).read_text()
        summary = json.loads((tmp_path / "report.json").read_text())
        assert list(summary["variants"]) == names and summary["failed"] == {"b": "Diverged: <nan> (exit code 3)"}
        assert f"{len(names)} variants, 1 failed" in page and "<li>b: Diverged: &lt;nan&gt; (exit code 3)</li>" in page


def test_a_figure_that_cannot_be_drawn_is_named_and_all_else_is_written(compare, config, tmp_path, monkeypatch):
    config.report.figures = ("rewards", "js_dial")
    monkeypatch.setattr(js_dial, "draw", lambda results, path: results["gone"])
    with pytest.raises(ReportError, match=r"report.html is without js_dial \(KeyError: 'gone'\)"):
        compare({"a": ({}, {"valid/nll": 1.0})})
    summary = json.loads((tmp_path / "report.json").read_text())
    assert list(summary["figures"]) == ["rewards"] and summary["variants"]["a"]["final"]["valid/nll"] == 1.0
    assert "js_dial: KeyError" in (tmp_path / "report.html").read_text()

    def stopped(results, path):
        raise Stopped("SIGTERM")

    monkeypatch.setattr(js_dial, "draw", stopped)
    with pytest.raises(Stopped):
        compare({"a": ({}, {"valid/nll": 1.0})})
