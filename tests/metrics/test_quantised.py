"""Clusters of two samples and the frontier of their histograms; MAUVE's own package where it is installed."""

import numpy as np
import pytest

from gentrain import divergences
from gentrain.metrics import intervals, manifolds, pairs, quantised


def test_clusters_of_blobs_are_the_blobs():
    random = np.random.default_rng(0)
    centres = 10 * np.eye(4, 6)
    kinds = random.integers(4, size=80)
    points = centres[kinds] + 0.1 * random.normal(size=(80, 6))
    real, fake = quantised.cluster(points[:40], points[40:], 3)
    assert real.shape == fake.shape == (3, 40) and real.max() < 4
    for labels in np.concatenate([real, fake], axis=1):
        pairs = set(zip(labels.tolist(), kinds.tolist(), strict=True))
        assert len({kind for _, kind in pairs}) == 4 and len(pairs) <= 4 + 2  # k-means may split one and join two
    again, _ = quantised.cluster(points[:40], points[40:], 3)
    assert np.array_equal(real, again)


def test_features_count_by_their_direction():
    random = np.random.default_rng(1)
    real, fake = random.normal(size=(60, 5)), random.normal(size=(60, 5))
    longer = real * random.uniform(1, 9, size=(60, 1))
    for one, other in zip(quantised.cluster(real, fake), quantised.cluster(longer, fake), strict=True):
        assert np.array_equal(one, other)


def test_the_area_is_one_for_equal_laws_less_for_others_and_nearly_none_without_a_common_cluster():
    p, q = np.asarray([0.5, 0.3, 0.2]), np.asarray([0.2, 0.3, 0.5])
    assert quantised.mauve(p, p) == pytest.approx(1)
    assert 0.3 < quantised.mauve(p, q) < 0.99
    assert quantised.mauve(p, q) == pytest.approx(quantised.mauve(q, p))
    apart = quantised.mauve(np.asarray([1.0, 0.0]), np.asarray([0.0, 1.0]))
    weight = np.linspace(0, 1, 200_001)[1:-1]  # KL[P||M] = -log w, KL[Q||M] = -log(1 - w)
    assert apart == pytest.approx(np.trapezoid(weight**5, -((1 - weight) ** 5)), abs=1e-3) and apart < 0.01


def test_histograms_are_shares_of_the_same_clusters():
    p, q = quantised.histograms(np.asarray([0, 0, 2, 1]), np.asarray([4, 1]))
    assert p.tolist() == [0.5, 0.25, 0.25, 0, 0] and q.tolist() == [0, 0.5, 0, 0, 0.5]


def test_a_frontier_is_the_mean_over_clusterings_and_no_surer_than_they_agree():
    random = np.random.default_rng(4)
    real, fake = random.normal(size=(100, 4)), random.normal(size=(100, 4)) + 0.3
    clusterings = list(zip(*quantised.cluster(real, fake, 5), strict=True))
    found = quantised.frontier(real, fake)
    measures = quantised.mauve, divergences.frontier_integral
    for interval, measure in zip(found, measures, strict=True):
        each = np.asarray([measure(*quantised.histograms(*labels)) for labels in clusterings])

        def mean(stays, measure=measure):
            return np.mean([measure(*quantised.histograms(p, q[stays])) for p, q in clusterings])

        parts = intervals.student(each), intervals.jackknife(mean, 100)
        reaches = [part.high - part.value for part in parts]
        assert interval.value == pytest.approx(each.mean())
        assert interval.high - interval.value == pytest.approx(np.hypot(*reaches)) and min(reaches) > 0
        assert interval.value - interval.low == pytest.approx(interval.high - interval.value)


@pytest.mark.parametrize("block", [14, 1 << 22])
def test_the_nearest_of_others(monkeypatch, block):
    monkeypatch.setattr(pairs, "BLOCK", block)
    random = np.random.default_rng(2)
    points, others = random.normal(size=(11, 3)), random.normal(size=(7, 3))
    expected = [min(np.linalg.norm(point - other) for other in others) for point in points]
    np.testing.assert_allclose(manifolds.nearest(points, others), expected)


@pytest.mark.slow
def test_the_frontier_is_that_of_the_package_mauve():
    package = pytest.importorskip("mauve.compute_mauve")
    random = np.random.default_rng(3)
    for shift in (0.0, 0.3, 1.0):
        real, fake = random.normal(size=(600, 12)), random.normal(size=(600, 12)) + shift
        p, q, _, _ = package.cluster_feats(real, fake, 60, norm="l2", whiten=False, seed=1)
        weights = np.linspace(1e-6, 1 - 1e-6, 25)
        x, y = package.get_divergence_curve_for_multinomials(p, q, weights, 5).T
        along_x, along_y = np.argsort(x), np.argsort(y)
        area = package.compute_area_under_curve
        theirs = 0.5 * (area(x[along_x], y[along_x]) + area(y[along_y], x[along_y]))
        assert quantised.mauve(p, q) == pytest.approx(theirs, abs=1e-6)
        assert divergences.frontier_integral(p, q) == pytest.approx(package.get_fronter_integral(p, q), abs=1e-6)
        # Clusters are random: those of the two packages are not the same, but say about the same.
        clusterings = zip(*quantised.cluster(real, fake), strict=True)
        ours = [quantised.mauve(*quantised.histograms(*labels)) for labels in clusterings]
        assert np.mean(ours) == pytest.approx(theirs, abs=0.05)


@pytest.mark.slow
def test_the_frechet_distance_is_that_of_torch_fidelity():
    package = pytest.importorskip("torch_fidelity.metric_fid")
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(4)
    real, fake = random.normal(size=(500, 16)), 1.3 * random.normal(size=(400, 16)) + 0.2
    statistics = [package.fid_features_to_statistics(torch.from_numpy(points)) for points in (real, fake)]
    theirs = package.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert manifolds.frechet(real, fake) == pytest.approx(theirs, abs=1e-3)
