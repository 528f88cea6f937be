"""Networks of pictures that are given: what evaluator 'fidelity' looks with in place of its own classifier."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from gentrain.errors import ConfigError
from gentrain.evaluators.base import compile_here
from gentrain.evaluators.encoders import load_dinov2, told_of

KEY = "evaluate.fidelity.features"
IMAGENET = np.asarray([0.485, 0.456, 0.406]), np.asarray([0.229, 0.224, 0.225])  # mean and deviation of [0, 1]
SIZE = 224  # of pictures for DINOv2

Network = Callable[[Float[np.ndarray, "n h w c"]], Float[np.ndarray, "n d"]]  # of pictures in [-1, 1], grey or coloured


def open_network(path: Path, kind: str) -> Network:
    """The features of a folder of DINOv2 as Hugging Face lays it out, or of an ONNX file of that kind, where '' and
    'inception' want pictures in [-1, 1] and 'dinov2' by ImageNet's mean and deviation.

    Raises ConfigError for what is neither, and for a folder that is said to be Inception.
    """
    if not path.is_dir():
        return Onnx(path, kind == "dinov2")
    with told_of(KEY, str(path)):
        if kind == "inception":
            raise ConfigError("it is a folder: expected DINOv2, and evaluate.fidelity.network='dinov2' or ''")
        return Dinov2(path)


class Onnx:
    """From pictures to features, the first output of a file's network, on the CPU.

    file: takes a free number of pictures (n, 3, height, width) of a fixed size. imagenet: whether it wants them by
    ImageNet's mean and deviation, as DINOv2 does, or in [-1, 1], as Inception does. Raises ConfigError for what is not
    such a file, and without the package onnxruntime, which is needed here alone.
    """

    def __init__(self, file: Path, imagenet: bool):
        if not file.is_file():
            raise ConfigError(f"{KEY}={str(file)!r}: there is no such file or folder")
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"{KEY} needs the package onnxruntime: pip install onnxruntime") from error
        try:
            self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:  # of several kinds, of which the package exports none
            raise ConfigError(f"{KEY}={str(file)!r}: not a network that onnxruntime reads") from error
        self.input = self.session.get_inputs()[0]
        shape = self.input.shape
        if (
            len(shape) != 4
            or isinstance(shape[0], int)
            or shape[1] != 3
            or not all(isinstance(n, int) for n in shape[2:])
        ):
            raise ConfigError(f"{KEY}={str(file)!r}: expected an input of (n, 3, height, width), n free, not {shape}")
        self.prepare = jax.jit(partial(prepare, tuple(shape[2:]), imagenet))

    def __call__(self, pictures: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
        inputs = {self.input.name: np.ascontiguousarray(self.prepare(pictures).transpose(0, 3, 1, 2))}
        features = self.session.run(None, inputs)[0]
        return features.reshape(len(pictures), -1).astype(np.float64)


class Dinov2:
    """From pictures to the class token of a folder's DINOv2, on one device of this process.

    It sees pictures of 224x224 pixels, as for FD-DINOv2 (Stein et al., 2023), which is of ViT-L/14 without registers.
    Raises ConfigError and CheckpointError as load_dinov2.
    """

    def __init__(self, folder: Path):
        self.tensors, forward = load_dinov2(folder, SIZE)
        self.see = compile_here(lambda tensors, pictures: forward(tensors, prepare((SIZE, SIZE), True, pictures)))

    def __call__(self, pictures: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
        return np.asarray(self.see(self.tensors, pictures), np.float64)


def prepare(shape: tuple[int, int], imagenet: bool, pictures: Array) -> Array:
    """Pictures (n, *shape, 3) of that scale.

    By bicubic interpolation that is smoothed where it shrinks, as clean-fid does (Parmar et al., 2022).
    """
    count, _, _, channels = pictures.shape
    values = jax.image.resize(pictures, (count, *shape, channels), "cubic", antialias=True).clip(-1, 1)
    values = jnp.broadcast_to(values, (count, *shape, 3))
    if imagenet:
        mean, deviation = (jnp.asarray(numbers, jnp.float32)[None, None, None] for numbers in IMAGENET)
        values = ((values + 1) / 2 - mean) / deviation
    return values
