"""Random changes of images that a gradient goes through, for a critic that sees few of them (Zhao et al. 2020)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from gentrain.objectives.adversarial_options import AUGMENTATIONS


def augment(names: Sequence[str], images: Array, keys: Array) -> Array:
    """Each image changed by the named operations in turn, as its own key says.

    images (n, height, width, channels) float32 in [-1, 1], keys (n,) -> the same shape; brightness and contrast may
    leave the range. What one operation draws does not depend on the others.
    """
    for name in names:
        operation_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, AUGMENTATIONS.index(name))
        images = jax.vmap(OPERATIONS[name])(operation_keys, images)
    return images


def flip(key: Array, image: Array) -> Array:
    """The mirror image, left and right exchanged, with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def shift(key: Array, image: Array) -> Array:
    """Moved by at most 1/8 of each side, in whole pixels; -1 comes in, which is black and most sets' background."""
    height, width, _ = image.shape
    reach = jnp.asarray([height // 8, width // 8])
    down, right = jax.random.randint(key, (2,), 0, 2 * reach + 1)
    edges = ((height // 8,) * 2, (width // 8,) * 2, (0, 0))
    return jax.lax.dynamic_slice(jnp.pad(image, edges, constant_values=-1), (down, right, 0), image.shape)


def cutout(key: Array, image: Array) -> Array:
    """A rectangle of half of each side is 0, which is grey; its centre is any pixel, so a part may fall outside."""
    height, width, _ = image.shape
    top, left = jax.random.randint(key, (2,), 0, jnp.asarray([height, width])) - jnp.asarray([height, width]) // 4
    inside = lambda first, side: (jnp.arange(side) >= first) & (jnp.arange(side) < first + side // 2)
    gone = inside(top, height)[:, None] & inside(left, width)[None, :]
    return jnp.where(gone[:, :, None], 0, image)


def brightness(key: Array, image: Array) -> Array:
    """x + u, u uniform in [-1/2, 1/2]."""
    return image + jax.random.uniform(key, minval=-0.5, maxval=0.5)


def contrast(key: Array, image: Array) -> Array:
    """m + u (x - m), u uniform in [1/2, 3/2], m the mean of the image."""
    mean = image.mean()
    return mean + jax.random.uniform(key, minval=0.5, maxval=1.5) * (image - mean)


OPERATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "flip": flip,
    "shift": shift,
    "cutout": cutout,
    "brightness": brightness,
    "contrast": contrast,
}
