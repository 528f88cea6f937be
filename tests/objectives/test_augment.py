"""Augmentations: each does what it says, to each image by its own key, and a gradient goes through."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain.objectives.adversarial.augment import augment
from gentrain.objectives.adversarial_options import AUGMENTATIONS

COUNT, HEIGHT, WIDTH = 200, 16, 24
KEYS = jax.random.split(jax.random.key(0), COUNT)
IMAGES = jax.random.uniform(jax.random.key(1), (COUNT, HEIGHT, WIDTH, 3), minval=-0.9, maxval=0.9)
every = pytest.mark.parametrize("name", AUGMENTATIONS)
compiled = functools.cache(lambda *names: jax.jit(functools.partial(augment, names)))


def changed(name):
    return np.asarray(compiled(name)(IMAGES, KEYS))


@every
def test_an_image_is_changed_by_its_own_key_alone(name):
    once = changed(name)
    assert once.shape == IMAGES.shape and once.dtype == np.float32
    assert len({image.tobytes() for image in compiled(name)(jnp.broadcast_to(IMAGES[:1], IMAGES.shape), KEYS)}) > 1
    np.testing.assert_allclose(compiled(name)(IMAGES[::-1], KEYS[::-1]), once[::-1], rtol=1e-6, atol=1e-6)
    other = compiled(name)(IMAGES.at[1:].multiply(0.5), jax.random.split(jax.random.key(2), COUNT).at[0].set(KEYS[0]))
    np.testing.assert_allclose(other[0], once[0], rtol=1e-6, atol=1e-6)


def test_operations_follow_one_another_and_draw_for_themselves():
    assert augment((), IMAGES, KEYS) is IMAGES
    both = compiled("flip", "shift")(IMAGES, KEYS)
    np.testing.assert_array_equal(both, compiled("shift")(jnp.asarray(changed("flip")), KEYS))
    light, contrast = changed("brightness").mean((1, 2, 3)) - IMAGES.mean((1, 2, 3)), changed("contrast").std((1, 2, 3))
    correlation = np.corrcoef(light, contrast / IMAGES.std((1, 2, 3)))[0, 1]
    assert abs(correlation) < 4 / COUNT**0.5  # of two independent draws


def test_flip_is_the_image_or_its_mirror():
    images = np.asarray(IMAGES)
    same = (changed("flip") == images).all((1, 2, 3))
    mirrored = (changed("flip") == images[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert abs(same.mean() - 0.5) < 4 * 0.5 / COUNT**0.5


def test_shift_moves_by_up_to_an_eighth_and_fills_with_black():
    images, found = np.asarray(IMAGES), set()
    padded = np.pad(images, ((0, 0), (2, 2), (3, 3), (0, 0)), constant_values=-1)
    for image, source in zip(changed("shift"), padded, strict=True):
        moves = [(y, x) for y in range(5) for x in range(7) if (source[y : y + 16, x : x + 24] == image).all()]
        assert len(moves) == 1
        found.add(moves[0])
    assert {y for y, _ in found} == set(range(5)) and {x for _, x in found} == set(range(7))


def test_cutout_leaves_one_grey_rectangle():
    images, areas = np.asarray(IMAGES), []
    for image, source in zip(changed("cutout"), images, strict=True):
        gone = (image == 0).all(-1)
        rows, columns = gone.any(1), gone.any(0)
        assert (gone == rows[:, None] & columns[None, :]).all() and (image[~gone] == source[~gone]).all()
        for line, side in ((rows, HEIGHT), (columns, WIDTH)):
            assert np.abs(np.diff(np.pad(line.astype(int), 1))).sum() == 2  # one piece
            assert side // 4 <= line.sum() <= side // 2
        areas.append(gone.sum())
    assert max(areas) == HEIGHT * WIDTH // 4 > min(areas)


def test_brightness_adds_one_number():
    added = changed("brightness") - np.asarray(IMAGES)
    each = added.mean((1, 2, 3))
    np.testing.assert_allclose(added, np.broadcast_to(each[:, None, None, None], added.shape), atol=1e-6)
    assert np.abs(each).max() <= 0.5 and abs(each.mean()) < 4 * (1 / 12 / COUNT) ** 0.5
    assert abs(each.std() - 12**-0.5) < 0.04


def test_contrast_keeps_the_mean_and_stretches_what_differs_from_it():
    images, after = np.asarray(IMAGES), changed("contrast")
    centred = lambda x: x - x.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(after.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5)
    each = after.std((1, 2, 3)) / images.std((1, 2, 3))
    np.testing.assert_allclose(centred(after), each[:, None, None, None] * centred(images), atol=1e-5)
    assert 0.5 <= each.min() < 0.6 and 1.4 < each.max() <= 1.5


@every
def test_a_gradient_flows_to_what_is_left(name):
    weights = jax.random.normal(jax.random.key(3), IMAGES.shape)
    slope = jax.jit(jax.grad(lambda images: jnp.sum(weights * augment((name,), images, KEYS))))(IMAGES)
    assert jnp.isfinite(slope).all()
    # All of these are affine in the image: value = slope . image + what no image gives.
    value = jnp.sum(weights * changed(name), axis=(1, 2, 3))
    without = jnp.sum(weights * compiled(name)(jnp.zeros_like(IMAGES), KEYS), axis=(1, 2, 3))
    np.testing.assert_allclose(jnp.sum(slope * IMAGES, axis=(1, 2, 3)), value - without, rtol=1e-3, atol=1e-2)
    assert ((slope != 0).mean(axis=(1, 2, 3)) > 0.5).all()
