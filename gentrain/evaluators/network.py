"""A network of pictures from an ONNX file: what evaluator 'fidelity' looks with where it is given one."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from gentrain.errors import ConfigError

KEY = "evaluate.fidelity.features"
IMAGENET = np.asarray([0.485, 0.456, 0.406]), np.asarray([0.229, 0.224, 0.225])  # mean and deviation of [0, 1]


class Network:
    """From pictures to features, its first output, on the CPU.

    file: takes a free number of pictures (n, 3, height, width) of a fixed size. imagenet: whether it wants them by
    ImageNet's mean and deviation, as DINOv2 does, or in [-1, 1], as Inception does. Raises ConfigError for what is not
    such a file, and without the package onnxruntime, which is needed here alone.
    """

    def __init__(self, file: Path, imagenet: bool):
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"{KEY} needs the package onnxruntime: pip install onnxruntime") from error
        if not file.is_file():
            raise ConfigError(f"{KEY}={str(file)!r}: there is no such file")
        try:
            self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:  # of several kinds, of which the package exports none
            raise ConfigError(f"{KEY}={str(file)!r}: not a network that onnxruntime reads") from error
        self.input, self.imagenet = self.session.get_inputs()[0], imagenet
        shape = self.input.shape
        if (
            len(shape) != 4
            or isinstance(shape[0], int)
            or shape[1] != 3
            or not all(isinstance(n, int) for n in shape[2:])
        ):
            raise ConfigError(f"{KEY}={str(file)!r}: expected an input of (n, 3, height, width), n free, not {shape}")
        self.resize = jax.jit(self.resized)

    def __call__(self, pictures: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
        """Features of pictures in [-1, 1], grey or in colour."""
        values = np.broadcast_to(self.resize(pictures), (len(pictures), *self.input.shape[2:], 3))
        if self.imagenet:
            mean, deviation = IMAGENET
            values = ((values + 1) / 2 - mean) / deviation
        inputs = {self.input.name: np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32)}
        features = self.session.run(None, inputs)[0]
        return features.reshape(len(pictures), -1).astype(np.float64)

    def resized(self, pictures):
        """By bicubic interpolation that is smoothed where it shrinks, as clean-fid does (Parmar et al., 2022)."""
        shape = (len(pictures), *self.input.shape[2:], pictures.shape[-1])
        return jax.image.resize(pictures, shape, "cubic", antialias=True).clip(-1, 1)
