"""Images as arrays of bytes, all of one shape."""

from typing import Any

import numpy as np

from gentrain.datasets import held_out
from gentrain.datasets.store import Writer
from gentrain.errors import DataError


class Pictures:
    """Images of a set as pixels of one shape, (height, width, channels).

    size: the side of the square that they are resized to, 0: as they are. channels: 0: as many as an image has.
    """

    def __init__(self, size: int, channels: int = 0):
        self.size, self.channels = size, channels
        self.shape: tuple[int, ...] | None = None
        self.first = ""

    def read(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """One image, resized; where: its name, for errors.

        Raises DataError where the image is not of bytes, or not of the shape of the first.
        """
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8:
            raise DataError(f"{where} has an image of {pixels.dtype}, expected uint8")
        pixels = fit(pixels, self.channels or pixels.shape[2], self.size)
        if self.shape is None:
            self.shape, self.first = pixels.shape, where
        if pixels.shape != self.shape:
            raise DataError(sizes_differ(self.first, self.shape, where, pixels.shape))
        return pixels


def fit(pixels: np.ndarray, channels: int, size: int) -> np.ndarray:
    """An image (height, width, channels) uint8 with other channels and, unless size is 0, as a square of that side."""
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


def sizes_differ(first: Any, shape: tuple[int, ...], other: Any, other_shape: tuple[int, ...]) -> str:
    """The message for two images, named by `first` and `other`, that are not of one shape."""
    return (
        f"images differ in (height, width, channels): {first} has {tuple(shape)}, {other} has {tuple(other_shape)}; "
        "set data.image_size"
    )


def write_tenths(writer: Writer, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes images, one a row, with their labels; about a tenth of them go to valid and to test each."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        writer.add(held_out.split_by_number(number, {"valid": 0.1, "test": 0.1}), image.tobytes(), int(label))
