"""GPT-2 as it is published."""

from collections.abc import Mapping
from typing import Any

from gentrain.errors import ConfigError
from gentrain.models.gpt2_options import Options
from gentrain.models.publishing import to_publish
from gentrain.published import Leaf

__all__ = ["MODEL_TYPES", "PREFIX", "UNUSED", "config_of", "leaves", "options_of", "to_publish"]
PREFIX = "transformer."  # of names, which files of the layers alone leave out
MODEL_TYPES = ("gpt2",)
UNUSED = (".attn.bias", ".attn.masked_bias", "lm_head.weight")  # masks; and of a table that is tied, a copy
# What such a config.json may say that this GPT-2 does not do, and the values with which there is nothing to do.
NOTHING_TO_DO: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
}


def options_of(said: Mapping[str, Any], adds_begin: bool) -> dict[str, Any]:
    """The options, by their names in a network's section, that a config.json says, and a tokenizer that puts a token
    before each text, or none. Raises ConfigError for what there is no option for, KeyError for what is not said.

    Its three probabilities of dropout say how it was trained, and not what it is.
    """
    for name, allowed in NOTHING_TO_DO.items():
        if said.get(name, allowed[0]) not in allowed:
            raise ConfigError(f"its {name} is {said[name]!r}: expected {allowed[0]!r}")
    return {
        "width": said["n_embd"],
        "layers": said["n_layer"],
        "gpt2.heads": said["n_head"],
        "gpt2.mlp_width": said.get("n_inner") or 0,
        "gpt2.positions": said["n_positions"],
        "gpt2.norm_epsilon": float(said.get("layer_norm_epsilon", 1e-5)),
        "gpt2.tie_embeddings": bool(said.get("tie_word_embeddings", True)),
        "gpt2.output_bias": False,
        "gpt2.scale_embeddings": False,
        "gpt2.sees_begin": adds_begin,
    }


def leaves(options: Options) -> list[Leaf]:
    """Where each parameter lies. Linear maps are stored as (in, out) here, all but that to the logits."""
    layer = "transformer.h.{}."
    maps = {"qkv": "attn.c_attn", "out": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
    found = [Leaf(f"layers/{name}/kernel", f"{layer}{tensor}.weight") for name, tensor in maps.items()]
    norms = {"layers/attention_norm": f"{layer}ln_1", "layers/mlp_norm": f"{layer}ln_2", "norm": "transformer.ln_f"}
    found += [Leaf(f"{name}/scale", f"{tensor}.weight") for name, tensor in norms.items()]
    biases = {f"layers/{name}": f"{layer}{tensor}" for name, tensor in maps.items()} | norms
    found += [Leaf(f"{name}/bias", f"{tensor}.bias") for name, tensor in biases.items()]
    table = "transformer.wte.weight"
    found += [Leaf("embed", table), Leaf("bos", table, begin=True, written=options.sees_begin)]
    found.append(Leaf("positions", "transformer.wpe.weight"))
    return found if options.tie_embeddings else [*found, Leaf("output/kernel", "lm_head.weight", transposed=True)]


def config_of(options: Options) -> dict[str, Any]:
    """The config.json, but for its vocabulary and special tokens."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": options.width,
        "n_layer": options.layers,
        "n_head": options.heads,
        "n_inner": options.mlp_width or None,
        "n_positions": options.positions,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": options.norm_epsilon,
        "attn_pdrop": 0.0,
        "embd_pdrop": options.dropout,
        "resid_pdrop": options.dropout,
        "tie_word_embeddings": options.tie_embeddings,
    }
