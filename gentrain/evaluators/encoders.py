"""Encoders that others publish, BERT of texts and DINOv2 of pictures: functions of the tensors of their folders."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gentrain.errors import CheckpointError, ConfigError
from gentrain.published import folder as folders

# Arrays by their published names; under "layers" by what follows the number of a layer, stacked over layers.
Tensors = dict[str, Any]

LAYER = "encoder.layer."
KERNEL = -0.75  # the parameter of torch's bicubic kernel


@contextmanager
def told_of(key: str, value: str) -> Iterator[None]:
    """What is wrong with a folder is told as a mistake of the option that names it."""
    try:
        yield
    except (CheckpointError, ConfigError) as error:
        raise ConfigError(f"{key}={value!r}: {error}") from error


def require(said: dict[str, Any], name: str, *expected: Any) -> Any:
    """What a config.json says of a name: one of those that are expected, of which the first is taken where it says
    nothing; or a positive whole number, where none is. Raises ConfigError for anything else."""
    found = said.get(name, *expected[:1])
    known = found in expected if expected else type(found) is int and found > 0
    if not known:
        wanted = " or ".join(map(repr, expected)) or "a positive whole number"
        raise ConfigError(f"its config.json has {name}={found!r}: expected {wanted}")
    return found


def read_tensors(folder: Path, said: dict[str, Any]) -> Tensors:
    """Float32, but for those of a head. Raises CheckpointError for damage, and for layers that are not there."""
    prefix, layers = f"{said['model_type']}.", require(said, "num_hidden_layers")
    named: dict[str, np.ndarray] = {}
    for name, stored in folders.tensors(folder):
        name = name.removeprefix(prefix)
        if name.startswith((LAYER, "embeddings.", "layernorm.")):
            named[name] = np.asarray(stored.read((slice(None),) * len(stored.shape)), np.float32)
    first = f"{LAYER}0."
    try:
        stacked = {
            name.removeprefix(first): np.stack([named[f"{LAYER}{n}.{name.removeprefix(first)}"] for n in range(layers)])
            for name in named
            if name.startswith(first)
        }
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"its tensors are not those of {layers} layers: {error}") from error
    return {name: array for name, array in named.items() if not name.startswith(LAYER)} | {"layers": stacked}


def check(forward: Callable[..., Array], *arguments: Any) -> None:
    """Raises CheckpointError where the tensors do not fit together."""
    try:
        jax.eval_shape(forward, *arguments)
    except KeyError as error:
        raise CheckpointError(f"it has no tensor {error}") from error
    except (TypeError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise CheckpointError(f"its tensors are not of the shapes that its config.json says: {said}") from error


def dense(tensors: Tensors, name: str, x: Array) -> Array:
    """W x + b: (n, t, inputs) -> (n, t, outputs)."""
    y = jnp.einsum("nti,oi->nto", x, tensors[f"{name}.weight"], precision="highest")
    return y + tensors[f"{name}.bias"][None, None]


def norm(tensors: Tensors, name: str, x: Array, epsilon: float) -> Array:
    """Layer norm: (x - mean) / sqrt(variance + epsilon), scaled and shifted. Ba et al., 2016."""
    x = x - x.mean(-1, keepdims=True)
    x = x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon)
    return x * tensors[f"{name}.weight"][None, None] + tensors[f"{name}.bias"][None, None]


def attend(tensors: Tensors, name: str, x: Array, heads: int, mask: Array | None = None) -> Array:
    """Softmax attention of every position to those of the mask (n, t): (n, t, width), before the last matrix."""
    parts = (dense(tensors, f"{name}.{part}", x) for part in ("query", "key", "value"))
    query, key, value = (part.reshape(*part.shape[:2], heads, -1) for part in parts)
    scores = jnp.einsum("nqhs,nkhs->nhqk", query, key, precision="highest") / np.sqrt(query.shape[-1])
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("nhqk,nkhs->nqhs", jax.nn.softmax(scores), value, precision="highest").reshape(x.shape)


def gelu(x: Array) -> Array:
    """x Phi(x), exactly."""
    return jax.nn.gelu(x, approximate=False)


def load_bert(folder: Path) -> tuple[Tensors, Callable[[Tensors, Array, Array], Array]]:
    """Its tensors, and forward(tensors, tokens (n, t) int32, mask (n, t) bool) -> states (n, t, width) of the last
    layer, which mean nothing where the mask is False. Devlin et al., 2019.

    Raises ConfigError where there is no such model, CheckpointError where it is damaged.
    """
    said = folders.read_config(folder)
    require(said, "model_type", "bert")
    require(said, "hidden_act", "gelu")
    require(said, "position_embedding_type", "absolute")
    require(said, "is_decoder", False)
    heads = require(said, "num_attention_heads")
    tensors = read_tensors(folder, said)
    forward = partial(bert, heads, said.get("layer_norm_eps", 1e-12))
    check(forward, tensors, np.zeros((1, 1), np.int32), np.ones((1, 1), bool))
    return jax.device_put(tensors), forward


def bert(heads: int, epsilon: float, tensors: Tensors, tokens: Array, mask: Array) -> Array:
    """The forward of `load_bert`."""
    tables = (tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type"))
    words, places, kinds = tables
    x = norm(tensors, "embeddings.LayerNorm", words[tokens] + (places[: tokens.shape[1]] + kinds[:1])[None], epsilon)

    def block(x, layer):
        mixed = dense(layer, "attention.output.dense", attend(layer, "attention.self", x, heads, mask))
        x = norm(layer, "attention.output.LayerNorm", x + mixed, epsilon)
        inner = dense(layer, "output.dense", gelu(dense(layer, "intermediate.dense", x)))
        return norm(layer, "output.LayerNorm", x + inner, epsilon), None

    return jax.lax.scan(block, x, tensors["layers"])[0]


def load_dinov2(folder: Path, size: int) -> tuple[Tensors, Callable[[Tensors, Array], Array]]:
    """Its tensors, and forward(tensors, pictures (n, size, size, 3) by ImageNet's mean and deviation) -> features
    (n, width), the class token after the last norm. Oquab et al., 2023; with registers Darcet et al., 2023.

    Embeddings of positions that were learned at another size are interpolated as transformers does. Raises ConfigError
    where there is no such model, or the size is no multiple of a patch, CheckpointError where it is damaged.
    """
    said = folders.read_config(folder)
    require(said, "model_type", "dinov2", "dinov2_with_registers")
    require(said, "hidden_act", "gelu")
    heads, patch = require(said, "num_attention_heads"), require(said, "patch_size")
    if size % patch:
        raise ConfigError(f"pictures of {size} pixels are no whole number of its patches of {patch}")
    tensors = read_tensors(folder, said)
    if not require(said, "qkv_bias", True, False):
        width = tensors["layers"]["attention.attention.query.weight"].shape[:2]
        zero = {f"attention.attention.{part}.bias": np.zeros(width, np.float32) for part in ("query", "key", "value")}
        tensors["layers"] |= zero
    forward = partial(dinov2, heads, said.get("layer_norm_eps", 1e-6))
    places = tensors["embeddings.position_embeddings"]
    with_registers = "embeddings.register_tokens" in tensors
    tensors["embeddings.position_embeddings"] = interpolate(places, size // patch, with_registers)
    check(forward, tensors, np.zeros((1, size, size, 3), np.float32))
    return jax.device_put(tensors), forward


def dinov2(heads: int, epsilon: float, tensors: Tensors, pictures: Array) -> Array:
    """The forward of `load_dinov2`."""
    kernel = tensors["embeddings.patch_embeddings.projection.weight"]
    (width, _, patch, _), count = kernel.shape, len(pictures)
    across = pictures.shape[1] // patch
    patches = pictures.reshape(count, across, patch, across, patch, 3)
    x = jnp.einsum("nipjqc,dcpq->nijd", patches, kernel, precision="highest").reshape(count, -1, width)
    x = x + tensors["embeddings.patch_embeddings.projection.bias"][None, None]
    first = jnp.broadcast_to(tensors["embeddings.cls_token"], (count, 1, width))
    x = jnp.concatenate([first, x], axis=1) + tensors["embeddings.position_embeddings"]
    if "embeddings.register_tokens" in tensors:
        registers = tensors["embeddings.register_tokens"]
        registers = jnp.broadcast_to(registers, (count, *registers.shape[1:]))
        x = jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)

    def block(x, layer):
        mixed = attend(layer, "attention.attention", norm(layer, "norm1", x, epsilon), heads)
        x = x + dense(layer, "attention.output.dense", mixed) * layer["layer_scale1.lambda1"][None, None]
        inner = norm(layer, "norm2", x, epsilon)
        if "mlp.weights_in.weight" in layer:  # SwiGLU, of the giant
            gate, up = jnp.split(dense(layer, "mlp.weights_in", inner), 2, axis=-1)
            inner = dense(layer, "mlp.weights_out", jax.nn.silu(gate) * up)
        else:
            inner = dense(layer, "mlp.fc2", gelu(dense(layer, "mlp.fc1", inner)))
        return x + inner * layer["layer_scale2.lambda1"][None, None], None

    x = jax.lax.scan(block, x, tensors["layers"])[0]
    return norm(tensors, "layernorm", x[:, :1], epsilon)[:, 0]


def interpolate(places: np.ndarray, size: int, smooth: bool) -> np.ndarray:
    """Embeddings (1, 1 + old * old, width) of a class token and of a square of patches, for a square of size * size.

    By torch's bicubic interpolation; smooth: with its antialiasing, as where there are registers, and another kernel.
    """
    old, width = round((places.shape[1] - 1) ** 0.5), places.shape[2]
    if places.shape[1] != 1 + old * old:
        raise CheckpointError(f"it has embeddings of {places.shape[1]} positions: expected 1 and a square")
    if size == old:
        return places
    square = places[0, 1:].reshape(old, old, width)
    if smooth:
        square = np.asarray(jax.image.resize(square, (size, size, width), "cubic", antialias=True))
    else:
        weights = bicubic(old, size)
        square = np.einsum("ia,jb,abd->ijd", weights, weights, square)
    return np.concatenate([places[:, :1], square.reshape(1, -1, width)], axis=1).astype(np.float32)


def bicubic(old: int, size: int) -> np.ndarray:
    """Weights (size, old) of old points at each of the new ones, whose ends are repeated. Keys, 1981."""
    weights = np.zeros((size, old))
    centres = (np.arange(size) + 0.5) * old / size - 0.5
    for offset in (-1, 0, 1, 2):
        points = np.floor(centres).astype(int) + offset
        far = np.abs(centres - points)
        near_part = ((KERNEL + 2) * far - (KERNEL + 3)) * far**2 + 1
        far_part = ((far - 5) * far + 8) * far * KERNEL - 4 * KERNEL
        np.add.at(weights, (np.arange(size), points.clip(0, old - 1)), np.where(far <= 1, near_part, far_part))
    return weights
