"""What a config.json says is an option or is refused in one line, and each parameter has a place in the files."""

import jax
import pytest

from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.plugins import load
from gentrain.sharding import path_name
from tests.models.helpers import published_family, published_section

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 8}
LLAMA = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA |= {"intermediate_size": 24, "rms_norm_eps": 1e-5}
SAID = {
    "gpt2": GPT2,
    "gpt2 untied": GPT2 | {"tie_word_embeddings": False, "n_inner": 24},
    "llama": LLAMA,
    "llama tied": LLAMA | {"tie_word_embeddings": True},
    "qwen2": LLAMA | {"model_type": "qwen2"},
    "qwen3": LLAMA | {"model_type": "qwen3", "head_dim": 8},
}
published = pytest.mark.parametrize("said", SAID.values(), ids=SAID)


@published
def test_every_parameter_has_its_place_and_nothing_else_has(said):
    name, module = published_family(said)
    section, family = published_section(said), load("models", name)
    shapes = jax.eval_shape(family.build(section, TextSpec(7, 8)).init, jax.random.key(0))
    places = {leaf.path: leaf for leaf in module.leaves(family.Options.of(section))}
    assert {path_name(path) for path, _ in jax.tree.leaves_with_path(shapes)} == places.keys()
    assert all(("{}" in leaf.tensor) == path.startswith("layers/") for path, leaf in places.items())
    tensors = [leaf.tensor for leaf in places.values() if not leaf.begin]
    assert len(set(tensors)) == len(tensors)


@published
def test_a_config_that_goes_out_comes_back(said):
    name, module = published_family(said)
    options = load("models", name).Options
    out = module.config_of(options.of(published_section(said)))
    assert out["model_type"] == said["model_type"]
    assert module.config_of(options.of(published_section(out))) == out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_function": "gelu"}, "its activation_function is 'gelu': expected 'gelu_new'"),
        ({"scale_attn_weights": False}, "its scale_attn_weights is False: expected True"),
        ({"scale_attn_by_inverse_layer_idx": True}, "its scale_attn_by_inverse_layer_idx is True: expected False"),
        ({"reorder_and_upcast_attn": True}, "its reorder_and_upcast_attn is True: expected False"),
        ({"add_cross_attention": True}, "its add_cross_attention is True: expected False"),
    ],
)
def test_what_no_gpt2_here_does_is_refused(changes, words):
    with pytest.raises(ConfigError, match=f"^{words}$"):
        published_section(GPT2 | changes)
    for allowed in ("gelu_new", "gelu_pytorch_tanh"):
        published_section(GPT2 | {"activation_function": allowed, "attn_pdrop": 0.1})


@pytest.mark.parametrize("option", ["output_bias", "scale_embeddings"])
def test_what_no_published_gpt2_has_does_not_go_out(option):
    name, module = published_family(GPT2)
    options = load("models", name).Options.of(published_section(GPT2, **{option: True}))
    with pytest.raises(ConfigError, match=f"train with gpt2.{option}=False"):
        module.config_of(options)
