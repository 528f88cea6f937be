"""The signs by which a game of two players is seen to go wrong, from samples and data alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from gentrain.objectives import diagnostics
from gentrain.sums import mean

RANDOM = np.random.default_rng(0)
DATA = RANDOM.normal(size=(64, 2)).astype(np.float32)


def signs(real, fake):
    return {name: mean(value) for name, value in diagnostics.compare(jnp.asarray(real), jnp.asarray(fake)).items()}


def test_distances_are_those_of_the_pairs():
    a, b = RANDOM.normal(size=(2, 5, 3)).astype(np.float32)
    apart = [[np.linalg.norm(x - y) for y in b] for x in a]
    np.testing.assert_allclose(diagnostics.distances(jnp.asarray(a), jnp.asarray(b)), apart, rtol=1e-5)
    x, y = RANDOM.integers(0, 3, (2, 4, 6))
    differ = [[(p != q).mean() for q in y] for p in x]
    np.testing.assert_allclose(diagnostics.distances(jnp.asarray(x), jnp.asarray(y)), differ, rtol=1e-6)


def test_signs_are_their_formulas():
    """E d(y, y') / E d(x, x') of different rows; the same of each row's nearest other; the energy distance."""
    x, y = 10 * RANDOM.normal(size=(2, 5, 3)).astype(np.float32)
    apart = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1)
    others = lambda a: apart(a, a)[~np.eye(5, dtype=bool)].reshape(5, 4)
    among_data, among_samples, between = others(x), others(y), apart(x, y).mean()
    assert signs(x, y) == pytest.approx(
        {
            "diversity": among_samples.mean() / among_data.mean(),
            "nearest": among_samples.min(1).mean() / among_data.min(1).mean(),
            "apart": (2 * between - among_data.mean() - among_samples.mean()) / (2 * between),
        },
        rel=1e-4,
    )


def test_samples_of_the_data_s_law_show_no_sign():
    runs = [signs(RANDOM.normal(size=(64, 2)), RANDOM.normal(size=(64, 2))) for _ in range(60)]
    means = {name: np.mean([each[name] for each in runs]) for name in runs[0]}
    assert means["diversity"] == pytest.approx(1, abs=0.03) and means["nearest"] == pytest.approx(1, abs=0.05)
    error = np.std([each["apart"] for each in runs]) / np.sqrt(60)
    assert abs(means["apart"]) < 4 * error < 0.02  # its mean is 0, not above: pairs of one and the same are left out


def test_each_way_to_fail_shows():
    one = signs(DATA, np.full((64, 2), 0.3, np.float32) + 1e-3 * DATA)
    assert one["diversity"] < 0.01 and one["nearest"] < 0.01
    few = signs(DATA, np.repeat(DATA[:4], 16, axis=0))  # four points, far from one another
    assert few["diversity"] > 0.5 and few["nearest"] < 0.01
    far = signs(DATA, DATA + 100)
    assert far["apart"] > 0.9 and far["diversity"] == pytest.approx(1, abs=1e-4)
    both = signs(np.zeros((64, 5), np.int32), np.ones((64, 5), np.int32))
    assert both["apart"] == pytest.approx(1)


def test_only_the_first_rows_are_compared():
    longer = np.concatenate([DATA, 1000 + DATA])
    assert signs(DATA, DATA) == pytest.approx(signs(longer, longer))
