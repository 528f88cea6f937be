"""Pairs in blocks, on any number of devices: the numbers are the same, and no block is larger than it may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import sharding
from gentrain.metrics import manifolds, pairs, two_sample


@pytest.fixture
def spread(monkeypatch):
    """spread(devices, block): of which the pairs are spread over so many, and the devices that each program has."""
    used = []

    def by_own_rows(function, devices):
        used.append(devices)
        return original(function, devices)

    def spread(devices, block):
        monkeypatch.setattr(jax, "local_device_count", lambda: devices)
        monkeypatch.setattr(pairs, "BLOCK", block)
        pairs.compiled.cache_clear()
        used.clear()
        return used

    original = sharding.by_own_rows
    monkeypatch.setattr(sharding, "by_own_rows", by_own_rows)
    yield spread
    pairs.compiled.cache_clear()


def test_numbers_are_the_same_on_any_number_of_devices(spread):
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(53, 4)), random.normal(size=(47, 4)) + 0.3
    found = {}
    for devices in (1, 4, 8):
        used = spread(devices, 200)  # four rows of 47 or three of 53 at once
        shares, kernel = manifolds.compare(real, fake), two_sample.kernel_distance(real, fake)
        found[devices] = [*np.ravel(shares), *kernel, *manifolds.nearest(fake, real)]
        assert set(used) == {devices}
    np.testing.assert_allclose(found[4], found[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found[8], found[1], rtol=1e-12, atol=1e-12)
    distances = np.linalg.norm(fake[:, None] - real, axis=-1).min(1)
    np.testing.assert_allclose(found[8][-len(fake) :], distances, rtol=1e-12)


def test_few_pairs_are_one_devices(spread):
    random = np.random.default_rng(1)
    used = spread(8, 1000)
    manifolds.nearest(random.normal(size=(20, 3)), random.normal(size=(50, 3)))
    assert used == [1]
    manifolds.nearest(random.normal(size=(50, 3)), random.normal(size=(50, 3)))
    assert used == [1, 3]


def test_blocks_are_no_larger_than_they_may_be_and_what_fills_them_up_adds_nothing(spread):
    spread(4, 300)
    shapes = []

    def of_block(rows, columns, there):
        shapes.append((len(rows), len(columns)))
        products = jnp.where(there[:, None], rows[:, None] * columns[None, :], 0.0)
        return rows, products.sum(0)

    rows, columns = np.arange(1.0, 204.0), np.arange(1.0, 31.0)
    of_rows, added = pairs.over_pairs(of_block, rows, columns)
    assert set(shapes) == {(10, 30)}
    np.testing.assert_array_equal(of_rows, rows)
    np.testing.assert_allclose(added, rows.sum() * columns, rtol=1e-15)
