"""Published models compute here what they compute in transformers, which wrote their files."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import plugins
from gentrain.datasets.spec import TextSpec
from gentrain.models.base import SequenceModel
from tests.models.helpers import published_family, published_section

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

VOCAB, BEGIN, ROWS, LENGTH = 97, 1, 2, 2048
ROTARY = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": LENGTH}
# By name: model_type and the rest of a config.json.
CASES = {
    "gpt2": ("gpt2", GPT2),
    "gpt2 untied": ("gpt2", GPT2 | {"tie_word_embeddings": False, "n_inner": 80, "layer_norm_epsilon": 0.01}),
    "llama": ("llama", ROTARY | {"tie_word_embeddings": True}),
    "llama untied": ("llama", ROTARY),
    "llama 3": ("llama", ROTARY | {"rope_parameters": STRETCHED}),
    "qwen2": ("qwen2", ROTARY | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", ROTARY | {"head_dim": 32}),
}
cases = pytest.mark.parametrize("case", CASES)


@functools.cache
def published(case: str) -> Any:
    """A model of transformers whose parameters are random, also those that start at 0 or 1."""
    kind, said = CASES[case]
    # Large weights, or attention would be nearly even and what it sees would not matter.
    config = transformers.AutoConfig.for_model(kind, vocab_size=VOCAB, initializer_range=0.15, **said)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape)
    return model


def here(model: Any, adds_begin: bool) -> tuple[SequenceModel, Any]:
    """The same model: its functions, compiled, and its parameters, by where each lies; adds_begin: see options_of."""
    said, tensors = model.config.to_dict(), {name: x.numpy() for name, x in model.state_dict().items()}
    section = published_section(said, adds_begin)
    name, module = published_family(said)
    built = plugins.load("models", name).build(section, TextSpec(VOCAB, LENGTH))
    params: dict[str, Any] = {}
    for leaf in module.leaves(plugins.load("models", name).Options.of(section)):
        names = [leaf.tensor.format(layer) for layer in range(section.layers if "{}" in leaf.tensor else 1)]
        parts = [tensors[name].T if leaf.transposed else tensors[name] for name in names]
        array = np.stack(parts) if "{}" in leaf.tensor else parts[0][BEGIN] if leaf.begin else parts[0]
        *folders, last = leaf.path.split("/")
        functools.reduce(lambda folder, name: folder.setdefault(name, {}), folders, params)[last] = array
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(built.init, jax.random.key(0)))
    assert jax.tree.map(jnp.shape, params) == shapes
    return built._replace(apply=jax.jit(built.apply), extend=jax.jit(built.extend)), params


def draw_tokens() -> np.ndarray:
    """Rows of tokens, the first of which is that with which a text begins."""
    tokens = np.random.default_rng(0).integers(BEGIN + 1, VOCAB, (ROWS, LENGTH)).astype(np.int32)
    tokens[:, 0] = BEGIN
    return tokens


def logits_of(model: Any, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens, dtype=torch.long)).logits.numpy()


def begun(tokens: np.ndarray) -> np.ndarray:
    """As inputs: the number of the beginning is that after all tokens'."""
    return np.where(np.arange(LENGTH)[None, :] == 0, np.int32(VOCAB), tokens)


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


@cases
def test_logits_and_cached_steps_are_those_of_transformers(case):
    tokens = draw_tokens()
    want = logits_of(published(case), tokens)
    assert want.std() > 0.5
    model, params = here(published(case), True)
    close(model.apply(params, begun(tokens)), want)

    @jax.jit
    def decode(params, inputs):
        cache = model.start(params, ROWS, LENGTH)
        _, logits = jax.lax.scan(lambda cache, token: model.step(params, cache, token), cache, inputs.T)
        return logits.swapaxes(0, 1)

    close(decode(params, begun(tokens)), want)


@cases
def test_a_text_without_a_beginning_is_the_same_after_one_that_is_not_seen(case):
    tokens = draw_tokens()[:, 1:]
    model, params = here(published(case), False)
    inputs = np.concatenate([np.full((ROWS, 1), VOCAB, np.int32), tokens], axis=1)
    close(model.apply(params, inputs)[:, 1:], logits_of(published(case), tokens))


@cases
def test_a_config_that_goes_out_says_the_same_model(case):
    name, module = published_family(published(case).config.to_dict())
    options = plugins.load("models", name).Options
    said = module.config_of(options.of(published_section(published(case).config.to_dict())))
    assert module.config_of(options.of(published_section(said))) == said
    config = transformers.AutoConfig.for_model(**said, vocab_size=VOCAB)
    other = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    assert type(other).__name__ == said["architectures"][0]
    other.load_state_dict(published(case).state_dict())
    close(logits_of(other, draw_tokens()), logits_of(published(case), draw_tokens()))
