"""Distances of two samples against their definitions, in known worlds, and against torch-fidelity."""

import math

import numpy as np
import pytest
from scipy import stats

from gentrain.metrics import intervals, manifolds, pairs, two_sample

WORLDS = 50


def covered(measure, truth):
    """In how many of 50 worlds the interval holds the truth."""
    found = [measure(np.random.default_rng(seed)) for seed in range(WORLDS)]
    assert all(interval.low < interval.value < interval.high for interval in found)
    return sum(interval.low <= truth <= interval.high for interval in found)


def pair(random, n, m, shift, d=4):
    """Of two Gaussians whose means are so far apart."""
    return random.normal(size=(n, d)), random.normal(size=(m, d)) + shift / math.sqrt(d)


def gaussian_mmd(shift, d):
    """Of N(0, I) and N(a, I), |a| = shift: E (x y / d + 1)^3 = 1 + 3 s + 3 E(x y / d)^2 + E(x y / d)^3, by moments."""

    def mean_kernel(a, b, inner):  # of independent x ~ N(a, I), y ~ N(b, I), whose means have squares a, b
        second = (d + a + b + inner**2) / d**2
        third = (inner**3 + 3 * inner * (a + b + d + 2)) / d**3
        return 1 + 3 * inner / d + 3 * second + third

    square = shift**2
    return mean_kernel(0, 0, 0) + mean_kernel(square, square, square) - 2 * mean_kernel(0, square, 0)


@pytest.mark.parametrize("block", [60, 1 << 22])
def test_the_kernel_distance_and_its_error_are_as_defined(monkeypatch, block):
    monkeypatch.setattr(pairs, "BLOCK", block)
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(12, 3)), random.normal(size=(9, 3)) + 1

    def by_definition(x, y):
        kernel = lambda a, b: (a @ b.T / 3 + 1) ** 3
        within = lambda a: (kernel(a, a).sum() - np.trace(kernel(a, a))) / (len(a) * (len(a) - 1))
        return within(x) + within(y) - 2 * kernel(x, y).mean()

    found = two_sample.kernel_distance(real, fake)
    assert found.value == pytest.approx(by_definition(real, fake))
    left_out = (
        intervals.jackknife(lambda chosen: by_definition(real[chosen], fake), 12, groups=12),
        intervals.jackknife(lambda chosen: by_definition(real, fake[chosen]), 9, groups=9),
    )
    np.testing.assert_allclose(found, intervals.combine(found.value, *left_out))
    with pytest.raises(ValueError, match="not 2 and 9"):
        two_sample.kernel_distance(real[:2], fake)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_the_kernel_distance_has_no_bias_and_its_interval_holds_the_truth(shift):
    truth = gaussian_mmd(shift, 4)
    assert (truth == 0) == (shift == 0)
    values = [
        two_sample.kernel_distance(*pair(np.random.default_rng(seed), 40, 60, shift)).value for seed in range(400)
    ]
    error = np.std(values, ddof=1) / 20
    assert abs(np.mean(values) - truth) < 4 * error
    assert covered(lambda random: two_sample.kernel_distance(*pair(random, 150, 200, shift)), truth) >= 45


@pytest.mark.parametrize(("n", "m"), [(5, 5), (6, 4), (7, 10)])
def test_along_a_line_it_is_the_wasserstein_distance_of_quantiles(n, m):
    random = np.random.default_rng(1)
    x, y = random.normal(size=(n, 1)), random.normal(size=(m, 1)) + 1
    ones, others = (np.repeat(np.sort(points[:, 0]), n * m // len(points)) for points in (x, y))
    assert two_sample.sliced_wasserstein(x, y, 0).value == pytest.approx(np.square(ones - others).mean())


def test_potentials_are_the_derivatives_by_the_weights_of_points():
    random = np.random.default_rng(2)
    n, m = 40, 25
    x, y = np.sort(random.normal(size=(1, n))), np.sort(random.normal(size=(1, m)) * 2)
    potential = two_sample.potentials(x, y)[0]

    def distance(weights):  # on a fine grid of quantiles
        levels = (np.arange(200_000) + 0.5) / 200_000
        ones = x[0][np.searchsorted(np.cumsum(weights), levels).clip(max=n - 1)]
        return np.square(ones - y[0][(levels * m).astype(int)]).mean()

    even, small = np.full(n, 1 / n), 1e-3
    for i in (0, 11, n - 1):  # its mass comes from all the others
        moved = [distance((1 - step) * even + step * (np.arange(n) == i)) for step in (small, -small)]
        assert potential[i] - potential.mean() == pytest.approx((moved[0] - moved[1]) / (2 * small), rel=0.05, abs=0.02)


@pytest.mark.parametrize("d", [8, 300])
def test_the_sliced_distance_of_shifted_laws_is_the_squared_shift_by_the_dimension(d):
    random, shift = np.random.default_rng(3), 3.0
    points, others = random.normal(size=(200, d)), random.normal(size=(300, d))
    moved = two_sample.sliced_wasserstein(points, points + shift * np.eye(d)[2], 4)
    assert moved.low <= shift**2 / d <= moved.high + 1e-12 and moved.value == pytest.approx(shift**2 / d, rel=0.2)
    floor = two_sample.sliced_wasserstein(points, others, 4).value
    far = two_sample.sliced_wasserstein(points, others + 10 * shift * np.eye(d)[2], 4)
    assert far.value == pytest.approx((10 * shift) ** 2 / d, rel=0.2) and 0 < floor < 0.1
    assert two_sample.sliced_wasserstein(points, points[::-1], 0).value == pytest.approx(0, abs=1e-20)
    if d == 8:  # directions of a whole frame say exactly as much as all there are
        assert moved.value == pytest.approx(shift**2 / d)


@pytest.mark.parametrize(("shift", "n", "m"), [(0.0, 150, 150), (0.5, 100, 160), (2.0, 150, 150)])
def test_intervals_of_the_sliced_distance_hold_its_mean(monkeypatch, shift, n, m):
    monkeypatch.setattr(two_sample, "DIRECTIONS", 100)
    draw = lambda random: two_sample.sliced_wasserstein(*pair(random, n, m, shift), int(random.integers(1 << 31)))
    truth = np.mean([draw(np.random.default_rng(1000 + seed)).value for seed in range(200)])
    assert covered(draw, truth) >= 45


def test_intervals_of_frechet_and_of_shares_hold_their_means():
    def measure(random):
        real, fake = pair(random, 120, 150, 0.7)
        frechet = lambda ones, others: manifolds.frechet(real[ones], fake[others])
        return [intervals.jackknife_pair(frechet, 120, 150), *manifolds.compare(real, 1.1 * fake)]

    found = np.asarray([measure(np.random.default_rng(seed)) for seed in range(WORLDS)])
    others = np.asarray([measure(np.random.default_rng(1000 + seed)) for seed in range(150)])
    truth = others[:, :, 0].mean(0)
    held = (found[:, :, 1] <= truth) & (truth <= found[:, :, 2])
    assert np.all(held.sum(0) >= 45), held.sum(0)


def test_ends_add_up_on_each_side_and_are_clipped():
    one, other = (
        intervals.Interval(*map(np.float64, (0.2, 0.1, 0.6))),
        intervals.Interval(*map(np.float64, (5, 4.9, 5.3))),
    )
    both = intervals.combine(0.3, one, other)
    assert both == pytest.approx((0.3, 0.3 - math.sqrt(0.02), 0.3 + 0.5))
    assert intervals.clip(both, 0.2, 0.7) == pytest.approx((0.3, 0.2, 0.7))


def test_a_share_of_none_and_of_all_is_not_certain():
    for truths in (np.zeros(30, bool), np.ones(30, bool)):
        found = intervals.share(truths)
        assert found.value == truths.mean() and found.high - found.low == pytest.approx(4 / 34, rel=0.05)
    random = np.random.default_rng(6)
    held = [
        found.low <= 0.03 <= found.high for found in (intervals.share(random.random(100) < 0.03) for _ in range(400))
    ]
    assert np.mean(held) > 0.9
    many = random.random(40_000) < 0.3
    error = math.sqrt(0.21 / 40_000)
    np.testing.assert_allclose(intervals.share(many)[1:], stats.norm.interval(0.95, many.mean(), error), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(400, 400), (500, 300)])
def test_on_given_features_torch_fidelity_says_the_same(n, m):
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(7)
    real, fake = random.normal(size=(n, 16)), 1.1 * random.normal(size=(m, 16)) + 0.2
    tensors = torch.from_numpy(fake), torch.from_numpy(real)
    theirs = prc.prc_features_to_metric(*tensors, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False)
    found = manifolds.compare(real, fake, near=3)
    assert 0.1 < theirs["precision"] < 0.99
    assert found.precision.value == pytest.approx(theirs["precision"], abs=1e-3)
    assert found.recall.value == pytest.approx(theirs["recall"], abs=1e-3)
    # Theirs is of subsets of one size, all of both where these are as many.
    subset = {"kid_subsets": 1 if n == m else 3000, "kid_subset_size": min(n, m), "verbose": False}
    theirs = kid.kid_features_to_metric(*tensors, **subset)["kernel_inception_distance_mean"]
    assert two_sample.kernel_distance(real, fake).value == pytest.approx(theirs, abs=1e-3) and theirs > 0.05
