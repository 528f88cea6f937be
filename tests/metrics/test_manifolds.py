"""Precision, recall, density, coverage and the Fréchet distance against their definitions and in closed form."""

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from gentrain.metrics import manifolds, pairs


def precision_recall(real, fake, k=3):
    found = manifolds.compare(real, fake, near=k)
    return float(found.precision.value), float(found.recall.value)


def density_coverage(real, fake, k=5):
    found = manifolds.compare(real, fake, near=1, wide=k)
    return float(found.density.value), float(found.coverage.value)


def by_definition(real, fake, k):
    """The shares, counted one pair of points at a time."""
    distance = lambda a, b: math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))

    def reaches(points):
        others = lambda i: [distance(points[i], other) for j, other in enumerate(points) if j != i]
        return [sorted(others(i))[k - 1] for i in range(len(points))]

    in_real = np.asarray([[distance(c, y) <= r for y in fake] for c, r in zip(real, reaches(real), strict=True)])
    in_fake = np.asarray([[distance(c, y) <= r for y in real] for c, r in zip(fake, reaches(fake), strict=True)])
    quality = in_real.any(0).mean(), in_fake.any(0).mean()
    return quality, (in_real.sum() / (k * len(fake)), in_real.any(1).mean())


@pytest.mark.parametrize("block", [40, 1 << 22])
@pytest.mark.parametrize("ties", [False, True])
def test_shares_are_as_defined_also_in_blocks_and_with_equal_points(monkeypatch, block, ties):
    monkeypatch.setattr(pairs, "BLOCK", block)
    random = np.random.default_rng(0)
    for n, m, k in ((12, 17, 1), (17, 12, 3), (20, 20, 5)):
        real, fake = random.normal(size=(n, 2)), random.normal(size=(m, 2)) + 0.5
        if ties:  # on a coarse grid many points are equal, or equally far
            real, fake = np.round(real), np.round(fake)
        quality, cover = by_definition(real, fake, k)
        assert precision_recall(real, fake, k) == pytest.approx(quality)
        assert density_coverage(real, fake, k) == pytest.approx(cover)


@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 5), (150, 300, 3), (300, 100, 5)])
def test_equal_laws_have_density_one_and_the_known_coverage(n, m, k):
    random, draws = np.random.default_rng(1), 60
    measured = np.asarray(
        [density_coverage(random.normal(size=(n, 4)), random.normal(size=(m, 4)), k) for _ in range(draws)]
    )
    coverage = 1 - math.prod((n - i) / (m + n - i) for i in range(1, k + 1))
    error = measured.std(0, ddof=1) / math.sqrt(draws)
    assert np.all(np.abs(measured.mean(0) - [1, coverage]) < 4 * error) and np.all(error < 0.01)
    if n == m:
        assert coverage == pytest.approx(1 - 2**-k, abs=0.002)


def test_collapse_costs_recall_and_dispersion_precision():
    random = np.random.default_rng(2)
    real = random.normal(size=(300, 3))
    collapsed = real[7] + 1e-3 * random.normal(size=(300, 3))
    precision, recall = precision_recall(real, collapsed)
    assert precision == 1 and recall <= 1 / 300
    assert density_coverage(real, collapsed)[1] < 0.1
    constant = np.broadcast_to(real[7] + 0.01, (300, 3))
    assert precision_recall(real, constant) == (1, 0)
    wide = 10 * random.normal(size=(300, 3))
    precision, recall = precision_recall(real, wide)
    assert precision < 0.2 and recall > 0.9
    far = density_coverage(real, real + 100)
    assert far == (0, 0) and precision_recall(real, real + 100) == (0, 0)


def test_precision_of_one_is_recall_of_the_other():
    random = np.random.default_rng(3)
    real, fake = random.normal(size=(80, 3)), 2 * random.normal(size=(120, 3))
    assert precision_recall(real, fake, 3) == precision_recall(fake, real, 3)[::-1]


def test_neighbours_need_enough_points():
    few, many = np.zeros((3, 2)), np.zeros((9, 2))
    for call in (
        lambda: manifolds.compare(few, many, near=3, wide=1),
        lambda: manifolds.compare(many, few, near=3, wide=1),
        lambda: manifolds.compare(few, many, near=1, wide=3),
    ):
        with pytest.raises(ValueError, match="needs more than 3 points, not 3"):
            call()


def test_copies_are_on_the_edge_of_a_ball_whatever_rounding_does(monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 400)  # so products of the two matrices are added up in different orders
    random = np.random.default_rng(7)
    real = 100 + random.normal(size=(400, 30))
    copied = real[:50]
    found = manifolds.compare(real, copied, near=3, wide=5)
    assert found.precision.value == 1
    distances = np.linalg.norm(real[:, None] - real, axis=-1)
    in_balls = (distances.argsort(1).argsort(1) <= 5)[:, :50]  # of itself, and of the five nearest others
    assert found.density.value == pytest.approx(in_balls.sum() / (5 * 50))
    assert found.coverage.value == in_balls.any(1).mean()


def test_what_is_lost_without_a_point_is_what_is_counted_without_it():
    random = np.random.default_rng(8)
    truths = random.random((23, 17)) < 0.08
    both = ((truths, np.arange(17)), (truths.T, np.arange(23)))
    counted = manifolds.Holds(*(map(np.asarray, manifolds.count_truths(*each)) for each in both))
    for axis, lost in ((0, counted.alone_in_column()), (1, counted.alone_in_row())):
        left = [np.delete(truths, i, axis).any(axis).sum() for i in range(truths.shape[axis])]
        assert lost.tolist() == [truths.any(axis).sum() - each for each in left] and lost.any()


def test_copies_of_train_are_closer_to_it_and_other_examples_are_not():
    random = np.random.default_rng(9)
    train, held_out, fresh = (random.normal(size=(n, 5)) for n in (2000, 300, 400))
    by_law = manifolds.nearest(held_out, train)
    fair = manifolds.closeness(manifolds.nearest(fresh, train), by_law)
    assert fair.ratio.low < 1 < fair.ratio.high and fair.closer.value < 0.05
    copied = manifolds.closeness(manifolds.nearest(np.concatenate([train[:100], fresh[:300]]), train), by_law)
    assert copied.ratio.high < 0.9 and copied.closer.value == pytest.approx(0.25 + 0.75 * 0.01, abs=0.03)
    assert copied.closer.low > fair.closer.high


@pytest.mark.parametrize("n", [30, 100])
def test_the_mean_share_that_is_closer_is_known_for_equal_laws(n):
    random = np.random.default_rng(10)
    uniform = np.linspace(0, 1, 2001)
    shares = [manifolds.closeness(uniform, random.random(n)).closer.value for _ in range(200)]
    error = np.std(shares, ddof=1) / math.sqrt(200)
    assert abs(np.mean(shares) - max(0.01, 1 / (n + 1))) < 4 * error < 0.3 / n


def whitened(random, n, d):
    """Points whose mean is 0 and whose covariance is the identity, to rounding."""
    points = random.normal(size=(n, d))
    points -= points.mean(0)
    return points @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(points, rowvar=False)))).T


def test_frechet_is_that_of_gaussians_with_the_same_moments():
    random = np.random.default_rng(4)
    for d in (1, 2, 5):
        white, other = whitened(random, 50, d), whitened(random, 70, d)
        a, b, shift = random.normal(size=(d, d)), random.normal(size=(d, d)), random.normal(size=d)
        from_white = np.square(1 - np.linalg.svd(a, compute_uv=False)).sum()
        assert manifolds.frechet(white, other @ a + shift) == pytest.approx(shift @ shift + from_white)
        s, t = a.T @ a, b.T @ b
        trace = np.trace(s + t - 2 * np.real(np.atleast_2d(sqrtm(s @ t))))
        assert manifolds.frechet(white @ a + 3, other @ b + 3 + shift) == pytest.approx(shift @ shift + trace)
    assert manifolds.frechet(white, 2 * white) == pytest.approx(d) == manifolds.frechet(2 * white, white)


def test_frechet_of_samples_falls_to_zero_as_one_by_n():
    random, d, draws = np.random.default_rng(5), 8, 60
    for n in (400, 1600):
        measured = [
            manifolds.frechet(3 * random.normal(size=(n, d)), 3 * random.normal(size=(n, d))) for _ in range(draws)
        ]
        expected = 9 * d * (d + 5) / (2 * n)
        error = np.std(measured, ddof=1) / math.sqrt(draws)
        assert abs(np.mean(measured) - expected) < 4 * error + expected * d / n and error < 0.1 * expected


def test_frechet_of_few_points_and_of_broken_ones():
    random = np.random.default_rng(6)
    few = random.normal(size=(5, 20)).astype(np.float32)
    assert manifolds.frechet(few, few[::-1]) == pytest.approx(0, abs=1e-6)
    assert math.isnan(manifolds.frechet(few, np.where(np.arange(20) == 3, np.inf, few)))
