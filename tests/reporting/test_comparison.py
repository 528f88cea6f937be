"""Variants are told apart by what differs, compared where that can be done, and every number drawn is kept."""

import json

import numpy as np
import pytest

from gentrain import files
from gentrain.errors import ReportError, Stopped
from gentrain.evaluators import fidelity, text_quality
from gentrain.reporting import comparison, plane, report, runs
from gentrain.reporting.figures import js_dial
from gentrain.sums import Metric


@pytest.fixture
def compare(tmp_path, write_run):
    """compare({run: (changes to the config, what was reached)}) -> report.json and the page."""

    def run(described, **words):
        for name, (changes, reached) in described.items():
            write_run(tmp_path / name, [{"step": 1, **reached}], changes)
        page = report.compare({name: tmp_path / name for name in described}, tmp_path, **words).read_text()
        return json.loads((tmp_path / "report.json").read_text()), page

    return run


def adversarial(prior, seed=0, **more):
    return {"objective.name": "adversarial", "objective.real_prior": prior, "seed": seed, **more}


def by_seed(changes, *values, metric="valid/nll"):
    return {f"{changes}{seed}": ({**changes, "seed": seed}, {metric: value}) for seed, value in enumerate(values)}


@pytest.mark.parametrize(
    ("configs", "names"),
    [
        ([{}, adversarial(0.1), adversarial(0.5)], ["likelihood", "adversarial, π = 0.1", "adversarial, π = 0.5"]),
        ([{}, {"objective.name": "scheduled_sampling"}], ["likelihood", "scheduled sampling"]),
        ([{"model.width": 8}, {"model.width": 16}], ["width = 8", "width = 16"]),
        (
            [{"model.width": 8, "critic.width": 4}, {"model.width": 8, "critic.width": 9}, {"model.width": 9}],
            ["critic width = 4", "critic width = 9", "critic width = none"],
        ),
        ([{"a.on": True}, {"a.on": False}], ["on = on", "on = off"]),
        ([{"data.name": "text:/x/one.txt"}, {"data.name": "text:/x/two.txt"}], ["one.txt", "two.txt"]),
        ([{"log.every_steps": 1}, {"log.every_steps": 2}], ["every steps = 1", "every steps = 2"]),  # nothing else does
        ([{"init_from": "runs/a"}, {"init_from": "runs/b"}], ["init from = a", "init from = b"]),
        ([{}, {}], ["0", "1"]),
        ([{}], ["likelihood"]),
    ],
)
def test_a_variant_is_called_by_what_sets_it_apart(tmp_path, write_run, configs, names):
    for number, changes in enumerate(configs):
        write_run(tmp_path / str(number), [], changes)
    found = [runs.read(str(number), tmp_path / str(number)) for number in range(len(configs))]
    assert list(runs.variants(found)) == names


def test_seeds_of_one_variant_are_one_whatever_else_says_how_they_were_watched(tmp_path, write_run):
    for seed in range(3):
        changes = {"seed": seed, "log.every_steps": seed, "init_from": f"runs/{seed}", "data.prefetch": seed}
        write_run(tmp_path / f"a{seed}", [], changes)
        write_run(tmp_path / f"b{seed}", [], changes | {"steps": 9})
    found = [runs.read(name, tmp_path / name) for name in ("a0", "b0", "a1", "b1", "a2", "b2")]
    groups = runs.variants(found)
    assert {name: [run.name for run in group] for name, group in groups.items()} == {
        "steps = 2": ["a0", "a1", "a2"],
        "steps = 9": ["b0", "b1", "b2"],
    }


def test_best_tied_and_worst_are_marked_and_said(compare):
    described = {
        **by_seed({"objective.name": "likelihood"}, 2.0, 2.1, 2.05),
        **by_seed(adversarial(0.1), 2.5, 2.6, 2.54),
        **by_seed(adversarial(0.9), 9.0, 9.3, 9.1),
    }
    summary, page = compare(described)
    ranking = summary["metrics"]["valid/nll"]["ranking"]
    assert (ranking["best"], ranking["worst"]) == ("likelihood", "adversarial, π = 0.9")
    assert summary["conclusion"][0] == (
        "Likelihood is best on valid NLL"
        " (2.050 nats/token, 0.497 [0.482, 0.511] less than the next, adversarial with π = 0.1)."
    )
    assert summary["conclusion"][1] == "Adversarial with π = 0.9 is worst on valid NLL (9.13 nats/token)."
    assert summary["conclusion"][2].startswith("Three seeds each, paired 95 % intervals")
    assert page.count('<span class="best">') == page.count('<span class="worst">') == 1

    described |= by_seed(adversarial(0.1), 2.01, 2.1, 2.04)
    summary, page = compare(described)
    assert summary["conclusion"][0] == "Likelihood and adversarial with π = 0.1 are tied for the best valid NLL."
    assert page.count('<span class="tied">') == 2 and '<span class="best">' not in page


def test_all_of_a_kind_are_named_together(compare):
    near = [by_seed(adversarial(prior), 2.0 + prior / 100, 2.1, 1.9) for prior in (0.1, 0.5, 0.9)]
    summary, _ = compare({**near[0], **near[1], **near[2], **by_seed({}, 5.0, 5.1, 5.2)})
    assert summary["conclusion"][0] == "The three adversarial variants are tied for the best valid NLL."
    many = [by_seed({"π": number}, 2.0, 2.1, 1.9) for number in range(6)]
    summary, _ = compare(
        {name: run for group in [*many, by_seed({"π": 9}, 5.0, 5.1, 5.2)] for name, run in group.items()}
    )
    assert summary["conclusion"][0] == "Six of seven variants are tied for the best valid NLL."


def test_one_seed_is_no_proof(compare):
    summary, page = compare({"a": ({"x": 1}, {"valid/nll": 1.0}), "b": ({"x": 2}, {"valid/nll": 9.0})})
    said = " ".join(summary["conclusion"])
    assert "X = 1 is ahead on valid NLL (1 nats/token, 8 less than the next, x = 2); too few seeds to be sure." in said
    assert "One seed each: no interval" in said and "best" not in said
    assert 'class="best"' not in page and "[" not in page.split('id="results"')[1].split("</section>")[0]


@pytest.mark.parametrize("changes", [{"data.name": "other"}, {"data.tokenizer": "words"}])
def test_runs_on_other_data_are_shown_and_not_ranked(compare, changes):
    summary, page = compare({"a": ({}, {"valid/nll": 1.0}), "b": (changes, {"valid/nll": 2.0})})
    assert summary["metrics"]["valid/nll"]["ranking"] is None and "different data" in summary["conclusion"][0]
    assert 'class="best"' not in page


def test_a_metric_without_a_direction_is_shown_and_never_ranked(compare):
    world = {"evaluate.evaluators": ["exact", "modes"]}
    reached = {"exact/forward_kl": 0.1, "modes/captured": 5, "exact/nll_oracle": 1.0, "exact/entropy": 2.0}
    values = [{name: value * scale for name, value in reached.items()} for scale in (1, 1.01, 2, 2.01)]
    summary, _ = compare(
        {
            str(number): (world | {"steps": number // 2, "seed": number % 2}, value)
            for number, value in enumerate(values)
        }
    )
    best = {name: metric["ranking"] and metric["ranking"]["best"] for name, metric in summary["metrics"].items()}
    assert best == {
        "exact/forward_kl": "steps = 0",
        "modes/captured": "steps = 1",
        "exact/nll_oracle": None,
        "exact/entropy": None,
    }
    assert summary["metrics"]["exact/entropy"]["values"]["steps = 0"]["mean"] == pytest.approx(2.01)


def test_what_was_not_finite_at_the_last_evaluation_counts_as_missing(tmp_path, write_run):
    write_run(tmp_path / "a", [{"step": 1, "valid/nll": 1.0}, {"step": 2, "valid/nll": None}], {"x": 1})
    write_run(tmp_path / "b", [{"step": 1, "valid/nll": 2.0}], {"x": 2})
    report.compare({"a": tmp_path / "a", "b": tmp_path / "b"}, tmp_path)
    summary = files.read_json(tmp_path / "report.json")
    assert summary["conclusion"][-1].endswith("there is no valid NLL of x = 1.")
    entry = summary["metrics"]["valid/nll"]
    assert entry["values"].keys() == {"x = 2"} and entry["ranking"]["order"] == ["x = 2"]


def test_intervals_within_a_run_and_floors_are_shown_and_are_no_metrics_of_their_own(compare, monkeypatch):
    for end in ("low", "high"):
        monkeypatch.setitem(fidelity.METRICS, f"fidelity/frechet_{end}", Metric("squared distance", None, "an end"))
    world = {"evaluate.evaluators": ["fidelity", "exact"]}
    reached = {"fidelity/frechet": 4.0, "fidelity/frechet_floor": 1.0, "fidelity/frechet_low": 3.5}
    reached |= {"fidelity/frechet_high": 4.75, "exact/nll_test": 2.0, "exact/nll_test_se": 0.5}
    summary, page = compare({"a": (world, reached)})
    assert summary["metrics"].keys() == {"fidelity/frechet", "exact/nll_test"}
    assert summary["metrics"]["fidelity/frechet"]["values"]["likelihood"]["floor"] == 1.0
    assert summary["metrics"]["fidelity/frechet"]["values"]["likelihood"]["within"] == [3.5, 4.75]
    assert summary["metrics"]["exact/nll_test"]["values"]["likelihood"]["within"] == [2 - 0.98, 2 + 0.98]
    assert "[1.02, 2.98] over samples" in page and "[3.50, 4.75] over samples" in page and "real data" in page


def test_of_one_number_by_several_orders_or_at_many_points_the_table_has_one_or_none():
    better = Metric("nats", "lower", "m")
    metrics = {f"a/jsd_{order}": better for order in (1, 2, 10)} | {"a/njs@<pi>": better, "<split>/nll": better}
    metrics |= {"a/ratio": better._replace(restates=True), "a/entropy": better._replace(better=None)}
    names = ["a/jsd_1", "a/jsd_2", "a/ratio", "a/entropy", "valid/nll", *(f"a/njs@0.{number}" for number in range(9))]
    assert comparison.main_metrics(names, metrics) == {"a/jsd_2", "valid/nll"}
    assert comparison.main_metrics(["a/njs@0.5"], metrics) == {"a/njs@0.5"}


def test_where_a_token_is_a_character_nats_are_told_by_the_character(compare):
    same = {"valid/nll": 2.0, "valid/nats_per_char": 2.0, "valid/bits_per_char": 2.0 / np.log(2)}
    assert compare({"a": ({}, same)})[0]["metrics"]["valid/nll"]["unit"] == "nats/char"
    other = same | {"valid/nats_per_char": 0.5}
    assert compare({"a": ({}, other)})[0]["metrics"]["valid/nll"]["unit"] == "nats/token"


def test_budgets_say_what_was_equal(tmp_path, write_run):
    for name, steps, seconds, hardware in (("a", 10, 5.0, "1 x cpu"), ("b", 10, 5.0, "8 x gpu")):
        write_run(tmp_path / name, [{"step": steps, "valid/nll": 1.0}], {"x": name})
        files.write_json(tmp_path / name / "goodput.json", {"seconds": {"train": seconds}, "wall": 2 * seconds})
        files.write_json(tmp_path / name / "provenance.json", {"hardware": hardware})
    report.compare({name: tmp_path / name for name in ("a", "b")}, tmp_path)
    summary = files.read_json(tmp_path / "report.json")
    assert {kind: budget["ratio"] for kind, budget in summary["budgets"].items()} == {
        "steps": 1,
        "examples": 1,
        "device_seconds": 8,
    }
    assert summary["budgets"]["device_seconds"]["spent"] == {"x = a": 5.0, "x = b": 40.0}
    assert summary["variants"]["x = b"]["cost"]["examples_per_second"] == 8.0
    assert summary["conclusion"][-1].endswith(
        "equal steps and examples; device-seconds of training differ up to 8.0-fold (x = a least, x = b most)."
    )


def test_a_curve_is_the_mean_over_seeds_between_the_least_and_the_most(tmp_path, write_run):
    for seed, nll in enumerate(([9.0, 2.0, 1.0], [9.0, 4.0, 2.0])):
        lines = [{"step": 10 * number, "valid/nll": value} for number, value in enumerate(nll)]
        lines += [{"step": number, "generator/loss": float(number)} for number in range(1, 1001)]
        write_run(tmp_path / str(seed), lines, {"seed": seed})
    found = [runs.read(str(seed), tmp_path / str(seed)) for seed in range(2)]
    drawn = comparison.content(found, {}, tmp_path)["curves"]
    line = {"steps": [0, 10, 20], "mean": [9.0, 3.0, 1.5], "low": [9.0, 2.0, 1.0], "high": [9.0, 4.0, 2.0]}
    assert drawn["valid/nll"]["lines"] == {"likelihood": line}
    assert drawn["valid/nll"]["window"] == [1.0, 4.0]  # the start would take most of the picture
    loss = drawn["generator/loss"]["lines"]["likelihood"]
    assert loss["steps"] == list(range(5, 1001, 5)) and loss["mean"][:2] == [3.0, 8.0]


def test_curves_stand_beside_what_they_are_compared_with(tmp_path, write_run):
    world = {"evaluate.evaluators": ["likelihood", "baselines", "exposure", "fidelity"]}
    levels = {"baseline/best_ngram": 2.25, "fidelity/frechet_floor": 1.0}
    reached = {"valid/nll": 2.0, "exposure/on_data": 0.3, "fidelity/frechet": 4.0, **levels}
    write_run(tmp_path / "a", [{"step": step, **reached} for step in (1, 2)], world)
    drawn = comparison.content([runs.read("a", tmp_path / "a")], {}, tmp_path)["curves"]
    assert {name: curve["levels"] for name, curve in drawn.items()} == {
        "valid/nll": {"baseline/best_ngram": 2.25},
        "exposure/on_data": {},  # a divergence, though its unit is the same
        "fidelity/frechet": {"fidelity/frechet_floor": 1.0},
    }


def test_pairs_of_quality_and_coverage_are_found_and_drawn(compare):
    world = {"evaluate.evaluators": ["exact", "fidelity"]}
    reached = {"exact/forward_kl": 0.1, "exact/reverse_kl": 5.0, "fidelity/precision": 0.5, "fidelity/recall": 0.7}
    summary, page = compare(
        {"a": (world | {"x": 1}, reached), "<b>": (world | {"x": "<b>"}, reached | {"exact/forward_kl": 9.0})}
    )
    assert summary["pairs"] == [
        {"quality": "exact/reverse_kl", "coverage": "exact/forward_kl"},
        {"quality": "fidelity/precision", "coverage": "fidelity/recall"},
    ]
    assert page.count('<svg class="plane"') == 2 and "exact forward KL 0.100, exact reverse KL 5" in page
    assert "<b></text>" not in page and "&lt;b&gt;</text>" in page


def test_curves_over_settings_are_found_and_drawn_with_every_number_in_the_report(compare):
    settings = ("0.5", "1", "1.25", "p0.9", "p0.95")
    reached = {f"frontier/bleu_4@{setting}": 0.5 - 0.01 * place for place, setting in enumerate(settings)}
    reached |= {f"frontier/self_bleu_4@{setting}": 0.4 - 0.01 * place for place, setting in enumerate(settings)}
    reached |= {"frontier/bleu_4_by_temperature": 0.45, "frontier/self_bleu_4_bound": 0.385}
    world = {"evaluate.evaluators": ["frontier"]}
    summary, page = compare({"one": (world, reached)})
    (frontier,) = summary["frontiers"]
    point = lambda place, setting: [place, f"frontier/bleu_4@{setting}", f"frontier/self_bleu_4@{setting}"]
    assert frontier["curves"] == {
        "temperature": [point(0.5, "0.5"), point(1, "1"), point(1.25, "1.25")],
        "top_p": [point(0.9, "p0.9"), point(0.95, "p0.95")],
    }
    assert frontier["bound"] == "frontier/self_bleu_4_bound" and frontier["better"] == ["higher", "lower"]
    assert frontier["quality"] == "frontier/bleu_4" and frontier["coverage"] == "frontier/self_bleu_4"
    for name, value in reached.items():
        assert summary["metrics"][name]["values"]["likelihood"]["mean"] == value
    assert page.count('<svg class="plane"') == 1 and page.count("<circle") == len(settings)
    assert "likelihood at temperature 1.25: frontier self BLEU 4 0.380, frontier BLEU 4 0.480" in page
    assert "Lines are over temperature and top p" in page and "frontier BLEU 4@" not in page  # in no table
    assert "likelihood at top p 0.9: frontier self BLEU 4 0.370" in page and page.count('class="bound"') == 1
    assert "frontier self BLEU 4, 0 to 1 ← better" in page and "frontier BLEU 4, 0 to 1 ↑ better" in page
    some = {name: value for name, value in reached.items() if not name.startswith("frontier/self_bleu_4@p")}
    _, page = compare({"one": (world, reached), "two": (world | {"x": 1}, some)})
    assert page.count("<circle") == len(settings) + 3 and page.count('data-variant="1" stroke') == 1


def test_the_figures_that_are_asked_for_are_drawn_and_their_numbers_kept(compare, tmp_path):
    summary, page = compare(
        {"a": ({"x": 1}, {"valid/nll": 1.0}), "b": ({"x": 2}, {"valid/nll": 2.0})}, figures=["rewards"]
    )
    assert summary["figures"]["rewards"]["log_ratio"] and (tmp_path / "plots" / "rewards.png").exists()
    assert 'alt="rewards"' in page


def test_a_figure_that_cannot_be_drawn_is_named_and_all_else_is_written(compare, tmp_path, monkeypatch):
    monkeypatch.setattr(js_dial, "draw", lambda results, path: results["gone"])
    with pytest.raises(ReportError, match=r"report.html is without js_dial \(KeyError: 'gone'\)"):
        compare({"a": ({}, {"valid/nll": 1.0})}, figures=("rewards", "js_dial"))
    summary = json.loads((tmp_path / "report.json").read_text())
    assert list(summary["figures"]) == ["rewards"] and summary["runs"]["a"]["final"]["valid/nll"] == 1.0
    assert "js_dial: KeyError" in (tmp_path / "report.html").read_text()

    def stopped(results, path):
        raise Stopped("SIGTERM")

    monkeypatch.setattr(js_dial, "draw", stopped)
    with pytest.raises(Stopped):
        compare({"a": ({}, {"valid/nll": 1.0})}, figures=("js_dial",))


def test_what_there_is_is_shown_and_what_failed_is_named(compare):
    for described in ({"a": ({}, {"valid/nll": 1.0})}, {"a": ({}, {})}, {}):
        summary, page = compare(described, failed={"b": "Diverged: <nan> (exit code 3)"})
        assert list(summary["runs"]) == list(described) and summary["failed"] == {"b": "Diverged: <nan> (exit code 3)"}
        assert "<li>b: Diverged: &lt;nan&gt; (exit code 3)</li>" in page and '<section id="conclusion">' in page


def test_alarms_that_rang_are_told_with_their_steps(tmp_path, write_run):
    lines = [{"step": step, "valid/nll": 1.0, "health/collapse": float(step in (2, 3))} for step in range(1, 5)]
    write_run(tmp_path / "a", lines)
    page = report.write(tmp_path / "a").read_text()
    assert "a: collapse 2 times, from step 2 to 3" in page
    assert files.read_json(tmp_path / "a/report.json")["runs"]["a"]["alarms"] == {"collapse": [2, 3]}


@pytest.mark.parametrize("count", [1, 5, 40])
def test_labels_stay_in_the_picture_and_apart(count):
    wanted = np.random.default_rng(count).uniform(plane.TOP, plane.FLOOR, count)
    places = plane.label_places([*wanted[:-1], wanted[0]])
    assert min(places) >= plane.TOP and max(places) <= plane.HEIGHT
    assert min(np.diff(sorted(places)), default=17) >= min(17, 330 / count) - 1e-9


def test_an_axis_holds_all_values_and_is_logarithmic_where_they_are_far_apart():
    for values in ([0.3, 0.5], [1e-3, 5.0], [-1.0, 100.0], [2.0, 2.0]):
        found = plane.axis(values)
        assert all(0 < found.place(value) < 1 for value in values) and len(found.marks) > 1
        assert all(-1e-9 <= found.place(mark) <= 1 + 1e-9 for mark in found.marks)
    middle = plane.axis([0.01, 1.0])
    assert middle.place(0.1) == pytest.approx(0.5)


@pytest.mark.parametrize(("orders", "shown"), [((1, 2, 3, 4), 2), ((3, 5), 3), ((1,), 1), ((4, 1), 4)])
def test_the_least_order_above_one_stands_for_all(orders, shown):
    names = [f"quality/jsd_{order}" for order in orders]
    assert comparison.main_metrics([*names, "quality/bleu_4"], text_quality.METRICS) == {f"quality/jsd_{shown}"}
