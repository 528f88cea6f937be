"""Figures draw what they say, and their numbers are theory's."""

import itertools

import numpy as np
import pytest

from gentrain import plugins
from gentrain.reporting.figures import gaussian_dial, mixing

CLOSED = [
    name
    for name in plugins.names("reporting.figures")
    if name
    not in (
        "gaussian_fit",
        "first_order_jump",
        "phase_transition",
        "frontiers",
        "forward_reverse",
        "mixing",
        "pictures_dial",
    )
]


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """The numbers and the picture of each closed figure."""
    folder = tmp_path_factory.mktemp("figures")
    drawn = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            gaussian_dial, "PRIORS", gaussian_dial.PRIORS[::4]
        )  # each of them is a search of most of a second
        for name in CLOSED:
            path = folder / f"{name}.png"
            drawn[name] = plugins.load("reporting.figures", name).draw({}, path), path
    return drawn


def test_every_closed_figure_is_a_picture_with_finite_numbers(figures):
    for numbers, path in figures.values():
        assert path.read_bytes()[:4] == b"\x89PNG"
        flat = [np.asarray(v, float) for v in flatten(numbers)]
        assert flat and all(np.isfinite(values).all() for values in flat)


def flatten(numbers):
    return [leaf for v in numbers.values() for leaf in (flatten(v) if isinstance(v, dict) else [v])]


def test_scheduled_sampling_is_right_only_when_it_never_samples(figures):
    numbers = figures["scheduled_sampling_bias"][0]
    for coin in ("token", "sequence"):
        bias = numbers[f"KL[P||Q], coin per {coin}"]
        assert bias[-1] == pytest.approx(0, abs=1e-12) and bias[0] == pytest.approx(0.778577, abs=1e-6)
        assert all(a > b for a, b in itertools.pairwise(bias))
        assert numbers[f"total correlation of Q, coin per {coin}"][0] == pytest.approx(0, abs=1e-12)


def test_schedules_fall_from_one_to_nothing(figures):
    for schedule in figures["keep_schedules"][0].values():
        values = schedule["keep_true"]
        assert values[0] > 0.98 and values[-1] < 0.01
        assert all(a >= b for a, b in itertools.pairwise(values))


def test_the_dial_ends_at_the_two_divergences_and_the_unnormalised_one_at_nothing(figures):
    numbers = figures["js_dial"][0]
    assert numbers["normalised_js"][0] == numbers["kl"] == pytest.approx(4.030, abs=1e-3)
    assert numbers["normalised_js"][-1] == numbers["reverse_kl"] and numbers["js"][0] == numbers["js"][-1] == 0


def test_the_non_saturating_dial_starts_where_the_other_ends(figures):
    numbers = figures["non_saturating_inversion"][0]
    saturating, other = (np.asarray(values) for name, values in numbers.items() if name != "real_prior")
    at = numbers["real_prior"].index(0.5)
    assert saturating[at] == pytest.approx(0.43589, abs=1e-4) and saturating[0] > 0.9
    assert other[0] == pytest.approx(0.19, abs=5e-3) and np.all(other < 0.19)


def test_rewards_run_from_the_ratio_to_its_logarithm(figures):
    numbers = figures["rewards"][0]
    ratio = np.asarray(numbers["log_ratio"])
    np.testing.assert_allclose(np.asarray(numbers["0.001"])[ratio < 1], np.expm1(ratio[ratio < 1]), atol=0.02)
    np.testing.assert_allclose(np.asarray(numbers["0.999"])[ratio > -4], ratio[ratio > -4], atol=0.06)


def test_the_frontier_integral_is_twice_the_area_under_the_dial(figures):
    numbers = figures["mauve_frontier"][0]
    for name, model in numbers.items():
        if name != "real_prior":
            area = np.trapezoid(model["js"], numbers["real_prior"])
            assert 2 * area == pytest.approx(model["frontier_integral"], rel=1e-3)


def test_no_temperature_beats_the_data_at_their_own_likelihood(figures):
    numbers = figures["temperature_frontier"][0]
    p = np.random.default_rng(1).dirichlet(np.full(81, 1.0))
    entropy = -(p * np.log(p)).sum() / 4
    for name, model in numbers.items():
        if name != "alpha":
            assert min(model["nll_test"]) > entropy
            one, best = (int(np.argmin(np.abs(np.asarray(numbers["alpha"]) - a))) for a in (1, model["best_alpha"]))
            assert model["nll_oracle"][best] < model["nll_oracle"][one]
            assert model["nll_test"][best] <= model["nll_test"][one] + 0.2


def test_frontiers_compare_the_best_samples_at_the_same_coverage(tmp_path):
    curve = lambda oracle, test: {
        f"frontier/{name}@{t:g}": value
        for t, *values in zip((0.5, 1.0, 1.5), oracle, test, strict=True)
        for name, value in zip(("nll_oracle", "nll_test"), values, strict=True)
    }
    named = {"likelihood": curve((5, 6, 8), (7.3, 7, 8)), "adversarial": curve((3, 5.5, 7), (9, 7.4, 7.6))}
    results = {name: {"config": {"objective.name": name}, "final": final} for name, final in named.items()}
    numbers = plugins.load("reporting.figures", "frontiers").draw(results, tmp_path / "frontiers.png")
    assert numbers["likelihood"]["best"] == 5
    # The bound of 7.4 is that of temperature 1 itself: towards 0.5 test grows from 7.4 to 9 at once.
    assert numbers["adversarial"]["best"] == pytest.approx(5.5)
    assert (tmp_path / "frontiers.png").read_bytes()[:4] == b"\x89PNG"


def test_a_mixture_is_worth_the_unique_examples_that_reach_its_loss(tmp_path):
    """Without a mixture 4 - log(size) / 2, so that a mixture with 4 - log(m size) / 2 is worth m times its examples."""
    worth = {0.0: 1.0, 0.25: 2.5, 0.75: 16.0}
    results = {}
    for seed, size, share in itertools.product((-1, 1), (10, 40, 100, 400), worth):
        nll = 4 - np.log(worth[share] * size) / 2 + 0.1 * seed
        others = [["wordnet", 2 * share, 0]] if share else []
        sources = [["shakespeare", 2 * (1 - share), 0, size], *others]
        config = {"data.mixture.sources": sources, "data.batch_size": 8, "steps": 100}
        key = "valid/nll_of_shakespeare" if share else "valid/nll"
        best = {"valid/nll": {"value": 0.0, "step": 0}, key: {"value": nll, "step": 50 + 10 * seed}}
        results[f"{seed},{size},{share}"] = {"config": config, "best": best}
    numbers = mixing.draw(results, tmp_path / "mixing.png")
    assert list(numbers) == ["10", "40", "100", "400"]
    for size, row in numbers.items():
        assert row["share"] == list(worth) and row["step"] == [50.0] * 3
        assert row["epochs"] == pytest.approx([800 * (1 - share) / int(size) for share in worth])
        assert row["nll"] == pytest.approx([4 - np.log(m * int(size)) / 2 for m in worth.values()])
        beyond = [m if m * int(size) <= 400 else np.nan for m in worth.values()]
        assert row["multiplier"] == pytest.approx(beyond, nan_ok=True)
    assert (tmp_path / "mixing.png").read_bytes()[:4] == b"\x89PNG"


def test_more_unique_examples_that_help_no_more_do_not_count(tmp_path):
    alone = {10: 3.0, 100: 2.0, 1000: 2.5, 10000: 1.0}
    assert mixing.multiplier(10, 2.5, alone) == pytest.approx(10**0.5)
    assert mixing.multiplier(10, 1.5, alone) == pytest.approx(100)  # halfway from 100 to 10000
    assert mixing.multiplier(100, 2.0, alone) == pytest.approx(1)
    assert np.isnan(mixing.multiplier(10, 3.1, alone)) and np.isnan(mixing.multiplier(10, 0.9, alone))


def test_learned_variances_stand_beside_the_closed_form(tmp_path, figures):
    alone = figures["gaussian_dial"][0]
    assert all(a > b for a, b in itertools.pairwise(alone["variance"]))  # from the data's mean to their narrow side
    config = {
        "data.name": "world:gaussian",
        "data.world.covariance": [[1.0, 0.0], [0.0, 1.0]],
        "objective.real_prior": 0.3,
    }
    results = {"one": {"config": config, "final": {"exact/sd": 0.9}}}
    numbers = plugins.load("reporting.figures", "gaussian_dial").draw(results, tmp_path / "dial.png")
    assert numbers["0.3"] == {"learned": pytest.approx(0.81), "exact": pytest.approx(1.0, abs=1e-6)}
    assert numbers["variance"] == pytest.approx([1.0] * len(numbers["variance"]), abs=1e-6)


def test_forward_and_reverse_are_taken_from_where_they_are_known_best(tmp_path):
    run = lambda name, **final: {"config": {"objective.name": name, "objective.real_prior": 0.5}, "final": final}
    measured = {
        "exact/forward_kl": 1.0,
        "exact/reverse_kl": 2.0,
        "exposure/forward_kl": 3.0,
        "exposure/reverse_kl": 4.0,
    }
    sampled = {name: value for name, value in measured.items() if name.startswith("exposure")}
    results = {"a": run("likelihood", **measured), "b": run("adversarial", **sampled), "c": run("likelihood")}
    numbers = plugins.load("reporting.figures", "forward_reverse").draw(results, tmp_path / "both.png")
    assert numbers == {"a": {"forward_kl": 1.0, "reverse_kl": 2.0}, "b": {"forward_kl": 3.0, "reverse_kl": 4.0}}
