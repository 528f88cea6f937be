"""What a config.json says is an option or is refused in one line, and each parameter has a place in the files."""

import jax
import numpy as np
import pytest

from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.plugins import load
from gentrain.sharding import path_name
from tests.models.helpers import close, published_family, published_section, put

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


@pytest.mark.parametrize("adds_begin", [True, False])
@pytest.mark.parametrize("changes", [{}, {"scale_embeddings": True}, {"tie_embeddings": False}])
def test_a_gpt2_goes_out_as_one_whose_table_says_all(adds_begin, changes):
    """Its rows are read as they are, and that of the begin is what begins."""
    section, begin = published_section(GPT2, adds_begin, **changes), 3
    name, module = published_family(GPT2)
    family, spec = load("models", name), TextSpec(7, 8)
    model, options = family.build(section, spec), family.Options.of(section)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda x: rng.normal(0.1, 0.3, x.shape).astype(x.dtype), shapes)
    out, written = module.to_publish(options, params, begin)
    if adds_begin:  # that row has its place
        written = written | {"embed": put(written["embed"], written["bos"], begin)}
    assert {leaf.path: leaf.written for leaf in module.leaves(out)}["bos"] == adds_begin
    other = family.build(published_section(module.config_of(out), adds_begin), spec)
    inputs = np.asarray([[7, 1, 2, 0, 4, 7, 5, 6]], np.int32)
    close(jax.jit(other.apply)(written, inputs), jax.jit(model.apply)(params, inputs))


def test_a_bias_of_the_logits_does_not_go_out():
    name, module = published_family(GPT2)
    options = load("models", name).Options.of(published_section(GPT2, output_bias=True))
    with pytest.raises(ConfigError, match="train with output_bias=False"):
        module.to_publish(options, {}, 0)
