"""The Transformer as it is published: Llama, Mistral, Qwen 2 and Qwen 3."""

from collections.abc import Mapping
from typing import Any

from gentrain.errors import ConfigError
from gentrain.models.publishing import to_publish
from gentrain.models.transformer_options import Options
from gentrain.published import Leaf

__all__ = ["MODEL_TYPES", "PREFIX", "UNUSED", "config_of", "leaves", "options_of", "to_publish"]
PREFIX = "model."  # of names, which files of the layers alone leave out
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
UNUSED = ("rotary_emb.inv_freq", "lm_head.weight")  # of a table that is tied, lm_head is a copy
# What such a config.json may say that this Transformer does not do, and the values with which there is nothing to do.
NOTHING_TO_DO: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "attention_dropout": (0, 0.0),
    "pretraining_tp": (1,),
}


def options_of(said: Mapping[str, Any], adds_begin: bool) -> dict[str, Any]:
    """The options, by their names in a network's section, that a config.json says, and a tokenizer that puts a token
    before each text, or none. Raises ConfigError for what there is no option for, KeyError for what is not said."""
    for name, allowed in NOTHING_TO_DO.items():
        if said.get(name, allowed[0]) not in allowed:
            raise ConfigError(f"its {name} is {said[name]!r}: expected {allowed[0]!r}")
    if said.get("sliding_window") and said.get("use_sliding_window", said["model_type"] == "mistral"):
        raise ConfigError(f"its attention has a sliding window of {said['sliding_window']}: expected none")
    kind, bias = said["model_type"], said.get("attention_bias", False)
    if bias and kind != "qwen2":
        raise ConfigError("its attention has biases: expected those of Qwen 2 alone")
    heads = said["num_attention_heads"]
    base, scaling = rope(said)
    return {
        "width": said["hidden_size"],
        "layers": said["num_hidden_layers"],
        "transformer.heads": heads,
        "transformer.kv_heads": said.get("num_key_value_heads") or heads,
        "transformer.head_size": said.get("head_dim") or 0,
        "transformer.mlp_width": said["intermediate_size"],
        "transformer.qkv_bias": kind == "qwen2",
        "transformer.qk_norm": kind == "qwen3",
        "transformer.norm_epsilon": float(said["rms_norm_eps"]),
        "transformer.rope_base": base,
        "transformer.rope_scaling": scaling,
        "transformer.tie_embeddings": bool(said.get("tie_word_embeddings", False)),
        "transformer.output_bias": False,
        "transformer.scale_embeddings": False,
        "transformer.sees_begin": adds_begin,
    }


def rope(said: Mapping[str, Any]) -> tuple[float, tuple]:
    """rope_base and rope_scaling. Old files have rope_theta and rope_scaling, new ones rope_parameters with both."""
    scaling = dict(said.get("rope_scaling") or {}) | dict(said.get("rope_parameters") or {})
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    base = float(scaling.get("rope_theta", said.get("rope_theta", 10_000.0)))
    if kind == "default":
        return base, ()
    if kind != "llama3":
        raise ConfigError(f"its rotary positions are scaled as {kind!r}: expected 'llama3', or not scaled")
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return base, tuple(scaling[name] for name in names)


def leaves(options: Options) -> list[Leaf]:
    """Where each parameter lies."""
    attention, mlp = "model.layers.{}.self_attn.", "model.layers.{}.mlp."
    kernels = {"query": f"{attention}q_proj", "key": f"{attention}k_proj", "value": f"{attention}v_proj"}
    kernels |= {
        "out": f"{attention}o_proj",
        "gate": f"{mlp}gate_proj",
        "up": f"{mlp}up_proj",
        "down": f"{mlp}down_proj",
    }
    found = [Leaf(f"layers/{name}/kernel", f"{tensor}.weight", transposed=True) for name, tensor in kernels.items()]
    scales = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    found += [Leaf(f"layers/{name}/scale", f"model.layers.{{}}.{tensor}.weight") for name, tensor in scales.items()]
    if options.qkv_bias:
        found += [Leaf(f"layers/{name}/bias", f"{kernels[name]}.bias") for name in ("query", "key", "value")]
    if options.qk_norm:
        found += [Leaf(f"layers/{name}_norm/scale", f"{attention}{name[0]}_norm.weight") for name in ("query", "key")]
    table = "model.embed_tokens.weight"
    found += [Leaf("embed", table), Leaf("bos", table, begin=True, written=options.sees_begin)]
    found.append(Leaf("norm/scale", "model.norm.weight"))
    return found if options.tie_embeddings else [*found, Leaf("output/kernel", "lm_head.weight", transposed=True)]


def config_of(options: Options) -> dict[str, Any]:
    """The config.json, but for its vocabulary and special tokens. Raises ConfigError for what no family has."""
    if options.qkv_bias and options.qk_norm:
        raise ConfigError("no published family has both transformer.qkv_bias and transformer.qk_norm")
    kind = "qwen3" if options.qk_norm else "qwen2" if options.qkv_bias else "llama"
    size = options.head_size or options.width // options.heads
    if kind == "qwen2" and size * options.heads != options.width:
        raise ConfigError("Qwen 2 has no transformer.head_size apart from width / heads")
    scaling: dict[str, Any] = {"rope_type": "default"}
    if options.rope_scaling:
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        scaling = {"rope_type": "llama3", **dict(zip(names, options.rope_scaling, strict=True))}
    return {
        "model_type": kind,
        "architectures": [{"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind] + "ForCausalLM"],
        "hidden_size": options.width,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.heads,
        "num_key_value_heads": options.kv_heads,
        "head_dim": size,
        "intermediate_size": options.mlp_width or -(-8 * options.width // (3 * 32)) * 32,
        "hidden_act": "silu",
        "rms_norm_eps": options.norm_epsilon,
        "rope_theta": options.rope_base,
        "rope_parameters": {"rope_theta": options.rope_base, **scaling},
        "attention_bias": False,
        "tie_word_embeddings": options.tie_embeddings,
    }
