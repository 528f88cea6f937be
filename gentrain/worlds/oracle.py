"""SeqGAN's synthetic benchmark: sequences drawn from an LSTM whose weights are N(0, 1)."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from gentrain.errors import ConfigError, DataError
from gentrain.files import open_regular
from gentrain.worlds.table import SequenceWorld, State, read_sizes

GATES = ("i", "f", "og", "c")  # input, forget, output gate, candidate
SHAPES = {"emb": "VE", "Wo": "HV", "bo": "V"} | {
    name + gate: shape for gate in GATES for name, shape in (("W", "EH"), ("U", "HH"), ("b", "H"))
}  # V: vocab, E: embedding, H: hidden
VOCAB, LENGTH, WIDTH = 5000, 20, 32  # SeqGAN's; WIDTH: of embeddings and hidden states
LARGEST = 2**30  # bytes of an array in a file
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
START = 0  # the token fed before the first


class Oracle(SequenceWorld):
    """One LSTM layer with fixed weights, fed with its own tokens; the start token is 0, the first state is 0.

    x = emb[token]; i, f, o = sigmoid(x W + h U + b); c = f c + i tanh(x Wc + h Uc + bc); h = o tanh(c);
    log P(next) = log_softmax(h Wo + bo). weights: emb, W?, U?, b? for ? in i, f, og, c, and Wo, bo.
    Raises DataError for missing arrays, shapes that do not fit and numbers that are not finite. Yu et al. 2017.
    """

    def __init__(self, weights: dict[str, np.ndarray], length: int = LENGTH):
        arrays = {name: np.asarray(weights[name], np.float64) for name in SHAPES if name in weights}
        if missing := sorted(SHAPES.keys() - arrays.keys()):
            raise DataError(f"an oracle needs the arrays {', '.join(SHAPES)}; missing: {', '.join(missing)}")
        emb, out = arrays["emb"], arrays["Wo"]
        sizes = dict(zip("VEH", (emb.shape[0], emb.shape[-1], out.shape[0]), strict=True))
        for name, shape in SHAPES.items():
            expected = tuple(sizes[axis] for axis in shape)
            if arrays[name].shape != expected:
                raise DataError(f"the oracle's array {name} has shape {arrays[name].shape}; expected {expected}")
            if not np.isfinite(arrays[name]).all():
                raise DataError(f"the oracle's array {name} has numbers that are not finite")
        self.vocab, self.length = sizes["V"], length
        self.hidden = sizes["H"]
        self.kernel = np.concatenate([arrays["U" + gate] for gate in GATES], axis=1)  # of the hidden state
        # What each token adds to the gates, once and for all: (vocab, 4 * hidden).
        self.inputs = np.concatenate([emb @ arrays["W" + gate] + arrays["b" + gate] for gate in GATES], axis=1)
        self.out, self.bias = out, arrays["bo"]

    def start(self, n: int) -> State:
        zeros = np.zeros((n, self.hidden))
        return self.advance((zeros, zeros), np.full(n, START))

    def log_conditional(self, state: State) -> np.ndarray:
        logits = state[0] @ self.out
        logits += self.bias  # in place from here: with 5,000 tokens the time goes into memory
        logits -= logits.max(-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        return logits

    def advance(self, state: State, tokens: np.ndarray) -> State:
        h, c = state
        i, f, o, g = np.split(self.inputs[tokens] + h @ self.kernel, 4, axis=1)
        c = expit(f) * c + expit(i) * np.tanh(g)
        return (expit(o) * np.tanh(c), c)


def random_weights(rng: np.random.Generator, vocab: int = VOCAB, width: int = WIDTH) -> dict[str, np.ndarray]:
    """Every weight and bias N(0, 1), as SeqGAN's target LSTM."""
    sizes = {"V": vocab, "E": width, "H": width}
    return {name: rng.standard_normal([sizes[axis] for axis in shape]) for name, shape in SHAPES.items()}


def read_weights(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file that an oracle has; pickled objects in it are refused, and so is a file that says that
    it has more than LARGEST bytes in an array. Raises DataError."""
    try:
        with open_regular(Path(path)) as file, zipfile.ZipFile(file) as archive:
            members = {name: f"{name}.npy" for name in SHAPES if f"{name}.npy" in archive.namelist()}
            return {name: read_array(archive, member) for name, member in members.items()}
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"data.world.path {path!r} is no readable .npz of plain arrays: {error}") from error


def read_array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    """An array of numbers, whose size is believed before it is allocated only up to LARGEST. Raises ValueError."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"{member} has format {version}; expected one of {', '.join(map(str, HEADERS))}")
        shape, _, dtype = HEADERS[version](file)
    if dtype.kind not in "fiu" or math.prod(shape) * dtype.itemsize > LARGEST:
        raise ValueError(f"{member} says it is {dtype} of shape {shape}; expected numbers of {LARGEST} bytes at most")
    with archive.open(member) as file:
        return np.lib.format.read_array(file)


def build(config: Any) -> Oracle:
    """The oracle in data.world.path, else the one drawn from data.world.seed."""
    vocab, length, rng = read_sizes(config, VOCAB, LENGTH)
    if not config.path:
        return Oracle(random_weights(rng, vocab), length)
    oracle = Oracle(read_weights(config.path), length)
    if config.vocab not in (0, oracle.vocab):
        raise ConfigError(f"data.world.vocab is {config.vocab}, but the oracle in data.world.path has {oracle.vocab}")
    return oracle
