"""Models in GGUF, the one-file format of llama.cpp, as they would be in a folder of Hugging Face."""

import math
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gentrain.errors import CheckpointError, ConfigError
from gentrain.files import open_regular
from gentrain.published import Published, Stored
from gentrain.published.gguf_header import Header, Tensor, read_header
from gentrain.published.gguf_tokenizer import ends_of, tokenizer_json

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}  # Mistral's models are 'llama' here
QUERY, KEY, VALUE, OUT = "attn_q", "attn_k", "attn_v", "attn_output"
FREQUENCIES = "rope_freqs.weight"  # what the rotary frequencies are divided by
# Llama 3's scaling of them, but for its factor.
LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def open_gguf(path: Path) -> Published:
    """The model in a GGUF file. Its tensors are read, and decoded to float32 where they are quantised, when asked for.

    Raises ConfigError for what is no model of this kind, or without the package gguf; CheckpointError for a damaged
    file.
    """
    require_gguf(str(path))
    try:
        with open_regular(path) as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = read_header(content)
        config = config_of(header) | scaling_of(header, content)
        begin, end, adds_begin = ends_of(header, config["vocab_size"])
        config |= {"bos_token_id": begin, "eos_token_id": end}
        tensors = tensors_of(header, config, content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged, or no GGUF file: {error}") from None
    tokenizer = (lambda: tokenizer_json(header, path)) if "tokenizer.ggml.model" in header.said else None
    return Published(str(path), config, tensors, tokenizer, begin, end, adds_begin)


def require_gguf(what: str) -> None:
    """Raises ConfigError where there is no package gguf to read something with."""
    try:
        import gguf  # noqa: F401, not above: only who opens such a file needs it
    except ImportError:
        raise ConfigError(f"reading {what} needs the package gguf: pip install gguf") from None


class Said:
    """What a header says of its architecture. A key without a default must be there: it raises ValueError."""

    def __init__(self, header: Header):
        self.header, self.family = header, header.find("general.architecture", str)
        if self.family not in FAMILIES:
            raise ConfigError(f"its architecture is {self.family!r}: expected one of {', '.join(FAMILIES)}")

    def size(self, key: str, default: int | None = None) -> int:
        """How many there are of something, at least one."""
        if (value := self.header.find(f"{self.family}.{key}", int, default)) < 1:
            raise ValueError(f"its {self.family}.{key} is {value}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """The shortest decimal number that is this one in single precision, as people write it: 1e-5."""
        return float(str(np.float32(self.header.find(f"{self.family}.{key}", float, default))))


def config_of(header: Header) -> dict[str, Any]:
    """The config.json, but for special tokens and the scaling of rotary positions. Raises ConfigError for what no such
    file can say, ValueError for damage."""
    said, tensors = Said(header), header.tensors
    if (parts := header.find("split.count", int, 1)) > 1:
        raise ConfigError(f"it is one of {parts} parts of a model: join them with llama-gguf-split --merge")
    if "token_embd.weight" not in tensors:
        raise ValueError("it lacks the tensor token_embd.weight")
    width, heads = said.size("embedding_length"), said.size("attention.head_count")
    size = said.size("attention.key_length", width // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if (other := said.size(key, size)) != size:
            raise ConfigError(f"its {said.family}.{key} is {other}: expected {size}, the size of a head")
    return {
        "model_type": said.family,
        "architectures": [f"{FAMILIES[said.family]}ForCausalLM"],
        "hidden_size": width,
        "num_hidden_layers": said.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": said.size("attention.head_count_kv", heads),
        "head_dim": size,
        "intermediate_size": said.size("feed_forward_length"),
        "hidden_act": "silu",
        "max_position_embeddings": said.size("context_length"),
        "rms_norm_eps": said.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": said.real("rope.freq_base", 10_000.0),
        "attention_bias": said.family != "qwen2" and f"blk.0.{QUERY}.bias" in tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in tensors,
        "tie_word_embeddings": "output.weight" not in tensors,
        "vocab_size": math.prod(tensors["token_embd.weight"].shape[:1]),
    }


def scaling_of(header: Header, content: mmap.mmap) -> dict[str, Any]:
    """The rope_scaling of the config.json, or nothing. Raises ConfigError for one that is not told."""
    said = Said(header)
    if (kind := header.find(f"{said.family}.rope.scaling.type", str, "none")) != "none":
        return {"rope_scaling": {"rope_type": kind, "factor": said.real("rope.scaling.factor", 1.0)}}
    if FREQUENCIES not in header.tensors:
        return {}
    divisors = stored(header, FREQUENCIES, content).read((slice(None),)).astype(np.float64)
    base = said.real("rope.freq_base", 10_000.0)
    turns = LLAMA_3["original_max_position_embeddings"] / (2 * np.pi) * base ** -np.linspace(0, 1, len(divisors), False)
    low, high = LLAMA_3["low_freq_factor"], LLAMA_3["high_freq_factor"]
    smooth, factor = np.clip((turns - low) / (high - low), 0, 1), float(divisors.max())
    if not np.allclose(divisors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-4):
        raise ConfigError(f"its {FREQUENCIES} scales rotary positions otherwise than Llama 3 does")
    return {"rope_scaling": {"rope_type": "llama3", "factor": factor, **LLAMA_3}}


def tensors_of(header: Header, config: dict[str, Any], content: mmap.mmap) -> dict[str, Stored]:
    """All tensors by their published names. Raises ValueError where one is missing, has another shape than the config
    says or is cut off, ConfigError where there is one that the family does not have."""
    found, strange = {}, set(header.tensors) - {FREQUENCIES}
    for name, published, shape in layout(config):
        if name not in header.tensors:
            raise ValueError(f"it lacks the tensor {name}")
        if header.tensors[name].shape != shape:
            raise ValueError(f"its tensor {name} has the shape {header.tensors[name].shape}: expected {shape}")
        order = None
        if config["model_type"] == "llama" and name.split(".")[-2] in (QUERY, KEY):
            # In this family alone llama.cpp rotates neighbours, where Hugging Face rotates the halves of a head.
            order = np.arange(shape[0]).reshape(-1, config["head_dim"] // 2, 2).swapaxes(1, 2).ravel()
        found[published] = stored(header, name, content, order)
        strange.discard(name)
    if strange:
        raise ConfigError(f"it holds the tensor {min(strange)}, which no {FAMILIES[config['model_type']]} has")
    return found


def layout(config: dict[str, Any]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in GGUF, published name, shape) of each tensor that a model with this config has."""
    width, hidden, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = size * config["num_attention_heads"], size * config["num_key_value_heads"]
    family = config["model_type"]
    yield "token_embd.weight", "model.embed_tokens.weight", (config["vocab_size"], width)
    yield "output_norm.weight", "model.norm.weight", (width,)
    if not config["tie_word_embeddings"]:
        yield "output.weight", "lm_head.weight", (config["vocab_size"], width)
    kernels = {
        QUERY: ("self_attn.q_proj", queries, width),
        KEY: ("self_attn.k_proj", keys, width),
        VALUE: ("self_attn.v_proj", keys, width),
        OUT: ("self_attn.o_proj", width, queries),
        "ffn_gate": ("mlp.gate_proj", hidden, width),
        "ffn_up": ("mlp.up_proj", hidden, width),
        "ffn_down": ("mlp.down_proj", width, hidden),
    }
    biased = {"ffn_gate", "ffn_up", "ffn_down"} if config["mlp_bias"] else set()
    biased |= {QUERY, KEY, VALUE} if family == "qwen2" or config["attention_bias"] else set()
    biased |= {OUT} if config["attention_bias"] else set()
    norms = {"attn_norm": ("input_layernorm", width), "ffn_norm": ("post_attention_layernorm", width)}
    if family == "qwen3":
        norms |= {f"{name}_norm": (f"self_attn.{name[-1]}_norm", size) for name in (QUERY, KEY)}
    for layer in range(config["num_hidden_layers"]):
        here, there = f"blk.{layer}", f"model.layers.{layer}"
        for name, (published, rows, columns) in kernels.items():
            yield f"{here}.{name}.weight", f"{there}.{published}.weight", (rows, columns)
            if name in biased:
                yield f"{here}.{name}.bias", f"{there}.{published}.bias", (rows,)
        for name, (published, length) in norms.items():
            yield f"{here}.{name}.weight", f"{there}.{published}.weight", (length,)


def stored(header: Header, name: str, content: mmap.mmap, order: np.ndarray | None = None) -> Stored:
    """A tensor of the file; order: which of its rows is the first, the second, … of the published tensor.

    Only the rows that are asked for are read: quantisation goes along the last dimension. Raises ValueError where the
    file ends before it does, ConfigError where it is stored in a way that cannot be read.
    """
    entry = header.tensors[name]
    kind = storage(entry, name)
    rows, columns = math.prod(entry.shape[:-1]), math.prod(entry.shape[-1:])
    if columns % kind.block:
        raise ValueError(f"its tensor {name} has rows of {columns} values: expected a multiple of {kind.block}")
    row = columns // kind.block * kind.size
    if entry.start + rows * row > len(content):
        raise ValueError(f"it ends within its tensor {name}, after {len(content)} bytes")
    raw = np.frombuffer(content, np.uint8, rows * row, entry.start).reshape(rows, row)

    def read(index: tuple[slice, ...]) -> np.ndarray:
        if len(entry.shape) == 1:
            values = kind.decode(raw)[0]
            return (values if order is None else values[order])[index]
        first, *rest = index
        return kind.decode(raw[first] if order is None else raw[order[first]])[(slice(None), *rest)]

    return Stored(entry.shape, kind.dtype, read)


class Storage(NamedTuple):
    """How values are stored: `block` of them in `size` bytes; decode(rows of bytes) -> rows of values of the dtype."""

    dtype: np.dtype
    block: int
    size: int
    decode: Callable[[np.ndarray], np.ndarray]


def storage(entry: Tensor, name: str) -> Storage:
    """How a tensor is stored. Raises ConfigError where the package gguf cannot decode that."""
    import ml_dtypes
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    plain = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
    try:
        kind = GGMLQuantizationType(entry.kind)
        block, size = GGML_QUANT_SIZES[kind]
        if kind.name in plain:
            dtype = plain[kind.name]
            return Storage(dtype, block, size, lambda rows: np.array(rows).view(dtype))
        quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError):
        raise ConfigError(f"its tensor {name} has ggml's type {entry.kind}, which gguf cannot decode") from None

    def decode(rows: np.ndarray) -> np.ndarray:
        none = np.zeros((0, rows.shape[1] // size * block), np.float32)  # which gguf has trouble with
        return quants.dequantize(rows, kind) if len(rows) else none

    return Storage(np.dtype(np.float32), block, size, decode)
