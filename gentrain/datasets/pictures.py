"""Images as arrays of bytes."""

from typing import Any

import numpy as np

from gentrain.datasets import store
from gentrain.errors import DataError


class Pictures:
    """Images of a set as pixels of one shape, (height, width, channels); channels 0: as many as an image has."""

    def __init__(self, size: int, channels: int = 0):
        self.size, self.channels = size, channels
        self.shape: tuple[int, ...] | None = None
        self.first = ""

    def read(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """Raises DataError where the image is not of bytes, or not of the shape of the first."""
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8:
            raise DataError(f"{where} has an image of {pixels.dtype}, expected uint8")
        pixels = fitted(pixels, self.channels or pixels.shape[2], self.size)
        if self.shape is None:
            self.shape, self.first = pixels.shape, where
        if pixels.shape != self.shape:
            raise DataError(differing_sizes(self.first, self.shape, where, pixels.shape))
        return pixels


def fitted(pixels: np.ndarray, channels: int, size: int) -> np.ndarray:
    """to_pixels of what is an array already."""
    from PIL import Image

    if not size and pixels.shape[2] == channels:
        return pixels
    return to_pixels(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), channels, size)


def to_pixels(image: Any, channels: int, size: int) -> np.ndarray:
    """A PIL image as (height, width, channels) uint8, stretched to a square of `size` pixels unless that is 0."""
    from PIL import Image

    image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    if size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def differing_sizes(first: Any, shape: tuple[int, ...], other: Any, other_shape: tuple[int, ...]) -> str:
    """What to say of images that are not of one size."""
    return (
        f"images differ in (height, width, channels): {first} has {tuple(shape)}, {other} has {tuple(other_shape)}; "
        "set data.image_size"
    )


def write_tenths(writer: store.Writer, images: np.ndarray, labels: np.ndarray) -> None:
    """Images one a row; about a tenth of them go to valid and to test each."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        writer.add(store.by_number(number, {"valid": 0.1, "test": 0.1}), image.tobytes(), int(label))
