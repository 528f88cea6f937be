"""Parts of sequence models against NumPy, by their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_config
from gentrain.datasets.spec import TextSpec
from gentrain.models import lstm, transformer
from gentrain.models.layers import keep_mask
from gentrain.plugins import load
from tests.models.helpers import (
    BATCH,
    BOS,
    CONTEXT_VOCAB,
    LENGTH,
    VOCAB,
    changed,
    close,
    draw,
    dropout_keys,
    make,
    put,
)


def test_rotated_scores_see_distances_alone_at_the_stated_wavelengths():
    """rotate(q, i) . rotate(k, j) = Re sum_m conj(q_m) k_m e^(i w_m (j - i)), w_m = base^(-2m/size)."""
    rng, size, count, base = np.random.default_rng(0), 6, 40, 50.0
    q, k = rng.normal(size=(2, size)).astype(np.float32)

    @jax.jit
    def everywhere(x):
        positions = jnp.arange(count)[None, :]
        cos, sin = transformer.rotation(positions, size, base)
        return transformer.rotate(jnp.broadcast_to(x[None, None, None, :], (1, count, 1, size)), cos, sin)[0, :, 0]

    scores = np.asarray(everywhere(q)) @ np.asarray(everywhere(k)).T  # (position of q, position of k)
    distance = np.arange(count)[None, :] - np.arange(count)[:, None]
    wave = base ** (-2 * np.arange(size // 2) / size)
    as_complex = [x[: size // 2] + 1j * x[size // 2 :] for x in (q, k)]
    product = np.conj(as_complex[0]) * as_complex[1]
    np.testing.assert_allclose(
        scores, np.real(product @ np.exp(1j * wave[:, None] * distance.ravel())).reshape(scores.shape), atol=1e-4
    )
    for apart in (-3, 0, 7):
        assert np.ptp(np.diagonal(scores, apart)) < 1e-4 < np.ptp(scores)


def test_the_transformer_turns_by_its_own_base():
    """A base that is infinite turns the first pair alone."""
    (model, params), (slow, _) = make("transformer"), make("transformer", rope_base=1e30)
    inputs, _ = draw("transformer")
    assert changed(model.apply(params, inputs), slow.apply(params, inputs))[:, 1:].all()


def lstm_by_numpy(params, inputs, masks=None):
    """Logits (batch, length, vocab), and the last cells of all layers; masks (batch, length, layers + 1, width)."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    table = np.concatenate([params["embed"], params["bos"][None]])
    layers, width = sorted(params["decoder"]), table.shape[1]
    masks = np.ones((*inputs.shape, len(layers) + 1, width)) if masks is None else masks
    states, logits = {name: np.zeros((2, len(inputs), width)) for name in layers}, []
    for t in range(inputs.shape[1]):
        starts = (inputs[:, t] == VOCAB)[:, None]
        x = table[inputs[:, t]] * np.sqrt(width)
        for number, name in enumerate(layers):
            c, h = np.where(starts, 0, states[name][0]), np.where(starts, 0, states[name][1])
            gates = (x * masks[:, t, number]) @ params["decoder"][name]["input"]["kernel"]
            gates = (
                gates
                + h @ params["decoder"][name]["recurrent"]["kernel"]
                + params["decoder"][name]["recurrent"]["bias"]
            )
            i, f, g, o = np.split(gates, 4, axis=-1)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            x = h = sigmoid(o) * np.tanh(c)
            states[name] = np.stack([c, h])
        logits.append((x * masks[:, t, -1]) @ params["output"]["kernel"] + params["output"]["bias"])
    return np.stack(logits, 1), [states[name][0] for name in layers]


def test_the_lstm_is_its_formula():
    """Open forget gates, initial states at beginnings, and one mask of dropout a layer and one for the output."""
    model, params = make("lstm", dropout=0.4)
    inputs, keys = put(draw("lstm")[0], BOS, (0, 0), (1, 4)), dropout_keys()
    close(model.apply(params, inputs), lstm_by_numpy(params, inputs)[0], 1e-4)
    masks = jax.jit(lambda: keep_mask(keys, 0, 0.4, (LENGTH, 3, 16), jnp.dtype("float32")))()
    close(model.apply(params, inputs, None, keys), lstm_by_numpy(params, inputs, np.asarray(masks))[0], 1e-4)


def test_cells_of_an_lstm_are_sums_in_float32():
    model, params = make("lstm", compute_dtype="bfloat16")
    inputs, _ = draw("lstm")
    cache = model.start(params, BATCH, LENGTH, None)
    for t in range(3):
        cache, _ = model.step(params, cache, inputs[:, t])
    for (cell, hidden), want in zip(
        jax.device_get(cache["carry"]), lstm_by_numpy(params, inputs[:, :3])[1], strict=True
    ):
        assert (cell.dtype.name, hidden.dtype.name) == ("float32", "bfloat16")
        assert (cell != cell.astype(hidden.dtype).astype(np.float32)).any()  # float32 in truth, not in name
        assert 0 < np.abs(cell - want).max() < 0.1


def test_what_a_step_adds_to_a_large_cell_is_not_lost_in_bfloat16():
    """c' = sigmoid(f + 1) c + sigmoid(i) tanh(g), here c + tanh(0.1): a fifth of what bfloat16 tells apart at 100."""
    width, zeros = 4, np.zeros((4, 16), np.float32)
    bias = np.repeat(np.asarray([20, 20, 0.1, 0], np.float32), width)  # i, f, g, o
    params = {"input": {"kernel": zeros}, "recurrent": {"kernel": zeros, "bias": bias}}
    state = jnp.full((1, width), 100, jnp.float32), jnp.zeros((1, width), jnp.bfloat16)
    # Not compiled: XLA on a CPU leaves out roundings to bfloat16.
    (cell, _), _ = lstm.Cell("float32").apply({"params": params}, state, jnp.zeros((1, width), jnp.bfloat16))
    close(cell, np.full((1, width), 100 + np.tanh(0.1)), 1e-4)


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_embeddings_are_read_times_the_root_of_the_width(name):
    family, config = load("models", name), get_config().model
    config.name, config.width, config.transformer.heads, config.transformer.kv_heads = name, 16, 4, 2
    build_module = {"lstm": "LSTM", "transformer": "Transformer"}[name]
    module = getattr(family, build_module)(
        family.Options.of(config), TextSpec(VOCAB, LENGTH, context_vocab=CONTEXT_VOCAB)
    )
    _, params = make(f"{name} context" if name == "transformer" else "lstm tied context")
    inputs, context = put(draw(name)[0], BOS, (0, 0), (1, 4)), draw("context")[1]
    weights = np.random.default_rng(0).dirichlet(np.ones(VOCAB + 1), (BATCH, LENGTH)).astype(np.float32)

    @jax.jit
    def read(params, inputs, weights, context):
        apply = functools.partial(module.apply, {"params": params})
        tokens, mixtures = (apply(x, method="read_tokens") for x in (inputs, weights))
        return tokens, mixtures, apply(context, method="read_context")

    table = 4 * np.concatenate([params["embed"], params["bos"][None]])
    for rows, want in zip(
        read(params, inputs, weights, context),
        (table[inputs], weights @ table, 4 * params["context"][context]),
        strict=True,
    ):
        close(rows, want)
