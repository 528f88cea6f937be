"""Ordinary runs of the launcher's loop that must land where theory says."""

import json

import numpy as np
import pytest

from configs import theory_factorised, theory_gaussian, theory_likelihood
from gentrain import divergences, worlds
from gentrain.options.check import variants
from gentrain.runtime.signals import Stop
from launch.sweep import sweep
from tests.objectives.helpers import final_metrics

pytestmark = pytest.mark.usefixtures("run_on_one_device")


def small(config):
    config.log.every_steps, config.data.world.held_out = config.steps, 256
    return config


def test_likelihood_learns_the_law(tmp_path):
    config = small(theory_likelihood.get_config())
    config.data.world.vocab, config.data.world.length, config.data.world.seed = 2, 3, 5
    config.steps = config.evaluate.every_steps = 800
    assert final_metrics(config, tmp_path)["exact/forward_kl"] < 1e-4


@pytest.mark.parametrize("prior", [0.0, 0.3, 1.0])
def test_the_dial_sets_the_variance(tmp_path, prior):
    config = small(theory_gaussian.get_config())
    config.sweep, config.objective.real_prior = (), prior
    config.steps = config.evaluate.every_steps = config.log.every_steps = 200
    config.optimizer.learning_rate = 0.07
    random = np.random.default_rng(7)
    root = random.normal(size=(2, 2))
    covariance = root @ root.T + 0.3 * np.eye(2)
    config.data.world.covariance = tuple(map(tuple, covariance.tolist()))
    wanted = worlds.gaussian_variance(covariance, prior) if prior != 0.3 else None
    if wanted is None:
        target = worlds.GaussianMixture(np.ones(1), np.zeros((1, 2)), covariance[None])
        wanted = worlds.js_minima(target, "isotropic", prior)[0].parameters[-1]
    assert final_metrics(config, tmp_path)["exact/sd"] ** 2 == pytest.approx(float(wanted), rel=1e-3)


def test_a_sweep_runs_its_variants_resumes_and_reports_across_them(tmp_path, capsys):
    config = small(theory_factorised.get_config())
    config.sweep = tuple(point for point in config.sweep if point["objective.real_prior"] in (0.5, 1.0))[2:]
    assert len(config.sweep) == 2
    sweep(config, tmp_path, "train", Stop())
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["runs"]) == set(variants(config))
    sides = [found["final"]["exact/max_marginal_error"] for found in report["runs"].values()]
    assert sides[0] < 1e-3 and sides[1] == pytest.approx(0.9438 - 0.5, abs=1e-3)  # symmetric, and one-sided
    ranking = report["metrics"]["exact/reverse_kl"]["ranking"]
    assert ranking["order"] == ["π = 1", "π = 0.5"] and ranking["best"] is None  # of one seed nothing is sure
    assert report["figures"]["phase_transition"]["0.48"]["critical_prior"] == pytest.approx(0.7538, abs=1e-3)
    assert (tmp_path / "plots" / "phase_transition.png").exists()
    assert "data:image/png;base64" in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    sweep(config, tmp_path, "train", Stop())
    assert capsys.readouterr().out.count("already done") == 2


@pytest.mark.parametrize("seed", [0, 1])
def test_finite_data_cost_half_a_nat_a_parameter_and_example(seed):
    """E KL[P||Q_n] ~ (V^N - 1) / (2 n) for the law of n counts, smoothed by 1/2 so that unseen strings stay
    possible."""
    random = np.random.default_rng(seed)
    world = worlds.Table(random.dirichlet(np.full(81, 3.0)).reshape((3,) * 4))
    p, n, costs = world.probabilities().ravel(), 20_000, []
    for _ in range(60):
        cells = np.ravel_multi_index(world.sample(random, n).T, (3,) * 4)
        counts = np.bincount(cells, minlength=81) + 0.5
        costs.append(divergences.kl(p, counts / counts.sum()))
    assert np.mean(costs) == pytest.approx(80 / (2 * n), rel=0.2)
