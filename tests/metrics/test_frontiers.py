"""The least of one number under a bound on another, along a curve."""

import numpy as np
import pytest

from gentrain.metrics.frontiers import least_under


def test_the_least_is_at_a_point_or_where_the_curve_meets_the_bound():
    least = lambda values, prices, bound: least_under(np.asarray([values, prices], float), bound)
    assert least((3, 5), (9, 7), 7.5) == pytest.approx(3.5 + 1.0)  # a quarter of the way from 7 to 9, and of 5 to 3
    assert least((5, 3), (7, 9), 7.5) == pytest.approx(3.5 + 1.0)  # in the other direction too
    assert least((3, 5, 4), (9, 7, 7.2), 7.5) == 4 and least((3, 5), (9, 7), 9) == 3
    assert np.isnan(least((3, 5), (9, 8), 7))


def test_it_is_the_same_at_other_points_of_a_fine_curve():
    random = np.random.default_rng(0)
    curve = lambda t: np.stack([np.log(t), np.square(np.log(t) - 1)])
    for bound in random.uniform(0.1, 0.8, 5):
        one, other = (least_under(curve(np.sort(random.uniform(0.5, 9, 2000))), bound) for _ in range(2))
        assert one == pytest.approx(1 - np.sqrt(bound), abs=1e-3) == other
