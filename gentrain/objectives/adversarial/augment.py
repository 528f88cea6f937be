"""Random changes of images that a gradient goes through, for a critic that sees few of them (Zhao et al. 2020)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain.objectives.adversarial_options import AUGMENTATIONS

Image = Float[Array, "height width channels"]


def augment(
    names: Sequence[str], images: Float[Array, "n height width channels"], keys: Array
) -> Float[Array, "n height width channels"]:
    """Each image changed by the named operations in turn, as its own key (n,) says.

    images: float32 in [-1, 1]; brightness and contrast may leave the range. What one operation draws does not depend on
    the others.
    """
    for name in names:
        operation_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, AUGMENTATIONS.index(name))
        images = jax.vmap(OPERATIONS[name])(operation_keys, images)
    return images


def flip(key: Array, image: Image) -> Image:
    """The mirror image, left and right exchanged, with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def shift(key: Array, image: Image) -> Image:
    """Moved by at most 1/8 of each side, in whole pixels; -1 comes in, which is black and most sets' background."""
    height, width, _ = image.shape
    reach = jnp.asarray([height // 8, width // 8])
    down, right = jax.random.randint(key, (2,), 0, 2 * reach + 1)
    edges = ((height // 8,) * 2, (width // 8,) * 2, (0, 0))
    return jax.lax.dynamic_slice(jnp.pad(image, edges, constant_values=-1), (down, right, 0), image.shape)


def cutout(key: Array, image: Image) -> Image:
    """A rectangle of half of each side is 0, which is grey. Its centre is any pixel, so a part may fall outside."""
    height, width, _ = image.shape
    top, left = jax.random.randint(key, (2,), 0, jnp.asarray([height, width])) - jnp.asarray([height, width]) // 4
    hidden = half_of_side(top, height)[:, None] & half_of_side(left, width)[None, :]
    return jnp.where(hidden[:, :, None], 0, image)


def half_of_side(first: Int[Array, ""], side: int) -> Bool[Array, "side"]:
    """The pixels of a side from `first` on, as many as half of it."""
    pixels = jnp.arange(side)
    return (pixels >= first) & (pixels < first + side // 2)


def brightness(key: Array, image: Image) -> Image:
    """x + u, u uniform in [-1/2, 1/2]."""
    return image + jax.random.uniform(key, minval=-0.5, maxval=0.5)


def contrast(key: Array, image: Image) -> Image:
    """m + u (x - m), u uniform in [1/2, 3/2], m the mean of the image."""
    mean = image.mean()
    return mean + jax.random.uniform(key, minval=0.5, maxval=1.5) * (image - mean)


OPERATIONS: dict[str, Callable[[Array, Image], Image]] = {
    "flip": flip,
    "shift": shift,
    "cutout": cutout,
    "brightness": brightness,
    "contrast": contrast,
}
