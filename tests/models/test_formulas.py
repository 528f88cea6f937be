"""Parts of sequence models against NumPy, by their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_config
from gentrain.datasets.spec import TextSpec
from gentrain.models import attention, layers, lstm, transformer
from gentrain.models.layers import keep_mask
from gentrain.plugins import load
from tests.models.helpers import (
    BATCH,
    BOS,
    CONTEXT_VOCAB,
    LENGTH,
    VARIANTS,
    VOCAB,
    close,
    conv,
    decode,
    draw,
    dropout_keys,
    make,
    put,
    weights,
)


def test_rotated_scores_see_distances_alone_at_the_stated_wavelengths():
    """rotate(q, i) . rotate(k, j) = Re sum_m conj(q_m) k_m e^(i w_m (j - i)), w_m = base^(-2m/size)."""
    rng, size, count, base = np.random.default_rng(0), 6, 40, 50.0
    q, k = rng.normal(size=(2, size)).astype(np.float32)

    @jax.jit
    def everywhere(x):
        positions = jnp.arange(count)[None, :]
        cos, sin = transformer.rotation(positions, transformer.frequencies(size, base))
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


def test_waves_that_llama_3_stretches():
    """Piece by piece, as Llama 3's own code has it: by wave lengths, and not by turns."""
    size, base, factor, low, high, length = 64, 5e5, 8.0, 1.0, 4.0, 8192
    plain = base ** (-2 * np.arange(size // 2) / size)
    wave = 2 * np.pi / plain
    smooth = (length / wave - low) / (high - low)
    between = (1 - smooth) * plain / factor + smooth * plain
    want = np.where(wave > length / low, plain / factor, np.where(wave < length / high, plain, between))
    assert len(set(np.sign([*(wave - length / low), *(wave - length / high)]))) == 2
    np.testing.assert_allclose(transformer.frequencies(size, base, (factor, low, high, length)), want, rtol=1e-5)


def transformer_by_numpy(params, inputs, heads, base, masks, epsilon=1e-6, scale=True):
    """Logits (batch, length, vocab); masks: two a layer, and last that of the embeddings, each (batch, length, width).

    x + attention(norm(x)) W, then x + (silu(norm(x) G) * norm(x) U) D, attention to one's own sequence up to oneself.
    """
    table, layers = np.concatenate([params["embed"], params["bos"][None]]), params["layers"]
    width, length, size = table.shape[1], inputs.shape[1], layers["query"]["kernel"].shape[2] // heads
    slots = np.arange(length)
    first = np.maximum.accumulate(np.where(inputs == VOCAB, slots, 0), axis=1)
    visible = (first[:, :, None] <= slots) & (slots <= slots[:, None])
    angle = (slots - first)[..., None] * base ** (-2 * np.arange(size // 2) / size)

    def norm(x, scale):
        return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon) * scale

    def project(name, y):
        heads = split_heads(y @ layers[name]["kernel"][layer] + layers[name].get("bias", np.zeros((99, 1)))[layer])
        return norm(heads, layers[f"{name}_norm"]["scale"][layer]) if f"{name}_norm" in layers else heads

    def split_heads(y):
        return y.reshape(*y.shape[:2], -1, size).transpose(2, 0, 1, 3)  # (head, batch, length, size)

    def rotate(y):
        turned = (y[..., : size // 2] + 1j * y[..., size // 2 :]) * np.exp(1j * angle)
        return np.concatenate([turned.real, turned.imag], axis=-1)

    x = table[inputs] * (np.sqrt(width) if scale else 1) * masks[-1]
    for layer in range(len(layers["query"]["kernel"])):
        kernel = {name: layers[name]["kernel"][layer] for name in layers if not name.endswith("norm")}
        y = norm(x, layers["attention_norm"]["scale"][layer])
        query, key, value = (project(name, y) for name in ("query", "key", "value"))
        key, value = (np.repeat(part, heads // len(part), axis=0) for part in (rotate(key), value))
        scores = np.where(visible, rotate(query) @ key.swapaxes(-1, -2) / np.sqrt(size), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        seen = (weights / weights.sum(-1, keepdims=True) @ value).transpose(1, 2, 0, 3).reshape(*x.shape[:2], -1)
        x = x + seen @ kernel["out"] * masks[2 * layer]
        y = norm(x, layers["mlp_norm"]["scale"][layer])
        gate = y @ kernel["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ kernel["up"])) @ kernel["down"] * masks[2 * layer + 1]
    output = params["output"]
    return norm(x, params["norm"]["scale"]) @ output["kernel"] + output.get("bias", 0)


def test_the_transformer_is_its_formula():
    """Grouped heads, sequences that begin at a beginning, and a mask of dropout a branch and one for the embeddings."""
    model, params = make("transformer", dropout=0.4, rope_base=50.0)
    inputs, keys = put(draw("transformer")[0], BOS, (0, 0), (1, 4)), dropout_keys()
    masks = jax.jit(lambda: [keep_mask(keys, site, 0.4, (LENGTH, 16), jnp.dtype("float32")) for site in range(5)])()
    want = functools.partial(transformer_by_numpy, params, inputs, 4, 50.0)
    close(model.apply(params, inputs), want(np.ones((5, 1, 1, 1))), 1e-3)
    close(model.apply(params, inputs, None, keys), want(np.asarray(masks)), 1e-3)


def test_the_transformer_with_what_published_models_have_is_its_formula():
    """Biases and norms of queries and keys, heads of a size of their own, another epsilon, plain embeddings."""
    own = {"qkv_bias": True, "qk_norm": True, "head_size": 6, "norm_epsilon": 0.1}
    model, params = make("transformer", rope_base=50.0, scale_embeddings=False, output_bias=False, **own)
    assert params["layers"].keys() >= {"query_norm", "key_norm"} and "bias" not in params["output"]
    assert all("bias" in params["layers"][name] for name in ("query", "key", "value"))
    inputs = put(draw("transformer")[0], BOS, (0, 0), (1, 4))
    want = transformer_by_numpy(params, inputs, 4, 50.0, np.ones((5, 1, 1, 1)), epsilon=0.1, scale=False)
    close(model.apply(params, inputs), want, 1e-3)
    close(decode(model, params, inputs, None), want, 1e-3)


def gpt2_by_numpy(params, inputs, heads, masks, sees_begin=True):
    """Logits (batch, length, vocab); masks: two a layer, and last that of the sum of both tables.

    x + attention(norm(x)) W + b, then x + gelu(norm(x) U + u) D + d; row by row, token by token and head by head.
    """
    table, layers = np.concatenate([params["embed"], params["bos"][None]]), params["layers"]
    (rows, length), size = inputs.shape, table.shape[1] // heads
    first = np.zeros((rows, length), int)
    for row, t in np.ndindex(rows, length):
        begins = inputs[row, t] == VOCAB or (not sees_begin and t > 0 and inputs[row, t - 1] == VOCAB)
        first[row, t] = t if begins else first[row, t - 1] if t else 0

    def norm(x, weights):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5) * weights["scale"] + weights["bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    scale = np.sqrt(table.shape[1])
    x = (table[inputs] + params["positions"][np.arange(length) - first]) * scale * masks[-1]
    for number in range(len(layers["qkv"]["kernel"])):
        layer = jax.tree.map(lambda leaf, number=number: leaf[number].astype(np.float64), layers)
        dense = lambda name, y, layer=layer: y @ layer[name]["kernel"] + layer[name]["bias"]
        query, key, value = np.split(dense("qkv", norm(x, layer["attention_norm"])), 3, axis=-1)
        seen = np.zeros_like(query)
        for row, t, head in np.ndindex(rows, length, heads):
            keys, part = np.s_[row, first[row, t] : t + 1], np.s_[head * size : (head + 1) * size]
            weights = np.exp(key[keys][:, part] @ query[row, t, part] / np.sqrt(size))
            seen[row, t, part] = weights / weights.sum() @ value[keys][:, part]
        x = x + dense("out", seen) * masks[2 * number]
        x = x + dense("down", gelu(dense("up", norm(x, layer["mlp_norm"])))) * masks[2 * number + 1]
    return norm(x, params["norm"]) @ params["output"]["kernel"] + params["output"]["bias"]


@pytest.mark.parametrize("sees_begin", [True, False])
def test_gpt2_is_its_formula(sees_begin):
    """Positions in their own sequence, biases, and a mask of dropout a branch and one for what the layers read."""
    model, params = make("gpt2", dropout=0.4, sees_begin=sees_begin)
    inputs, keys = put(draw("gpt2")[0], BOS, (0, 0), (1, 4), (2, 2), (2, 3)), dropout_keys()
    masks = jax.jit(lambda: [keep_mask(keys, site, 0.4, (LENGTH, 16), jnp.dtype("float32")) for site in range(5)])()
    want = functools.partial(gpt2_by_numpy, params, inputs, 4, sees_begin=sees_begin)
    close(model.apply(params, inputs), want(np.ones((5, 1, 1, 1))))
    close(model.apply(params, inputs, None, keys), want(np.asarray(masks)))


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
    width, kernel = 4, jnp.zeros((4, 16), jnp.bfloat16)
    gates = jnp.asarray(np.repeat([20, 20, 0.1, 0], width)[None, :], jnp.bfloat16)  # i, f, g, o
    state = jnp.full((1, width), 100, jnp.float32), jnp.zeros((1, width), jnp.bfloat16)
    # Not compiled: XLA on a CPU leaves out roundings to bfloat16.
    (cell, _), _ = lstm.step_cell(kernel, state, gates)
    close(cell, np.full((1, width), 100 + np.tanh(0.1)), 1e-4)


def test_the_gradient_of_the_recurrent_kernel_is_that_of_the_scan():
    rng, (batch, length, width) = np.random.default_rng(0), (3, 7, 4)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    bos = jnp.asarray(rng.random((batch, length)) < 0.3)
    state, initial = ((normal(batch, width), normal(batch, width)) for _ in range(2))
    arguments = normal(width, 4 * width), state, normal(batch, length, 4 * width), initial
    weights = normal(batch, length, width)

    def loss(unroll, kernel, state, gates, initial):
        (cell, last), hidden = unroll(lstm.step_cell, kernel, state, gates, bos, initial)
        return jnp.sum(hidden * weights) + jnp.sum(cell * last)

    # The kernel's gradient as JAX sums it up, and as one matmul.
    by_scan, by_matmul = (
        jax.jit(jax.grad(functools.partial(loss, unroll), argnums=range(4)))(*arguments)
        for unroll in (lstm.unroll, lstm.unroll_layer)
    )
    jax.tree.map(lambda x, y: close(x, y, 1e-5), by_scan, by_matmul)


def test_a_picture_is_read_by_strided_convolutions_as_rows_of_vectors():
    """Of numbers in [-1, 1], silu(norm(conv(x))) until 4 rows or columns at most are left, and a linear map."""
    module, x = layers.Picture(16, "float32"), np.random.default_rng(0).integers(0, 256, (2, 9, 14, 2), np.uint8)
    params = weights(module, x)
    y = x.astype(np.float32) / 127.5 - 1
    for number in range(2):  # 9x14 -> 5x7 -> 3x4
        y = conv(y, **params[f"Conv_{number}"], stride=2)
        y = y / np.sqrt(np.square(y).mean(-1, keepdims=True) + 1e-6) * params[f"RMSNorm_{number}"]["scale"]
        y = y / (1 + np.exp(-y))
    want = (y @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]).reshape(2, 12, 16)
    close(jax.jit(module.apply)({"params": params}, x), want, 1e-3)


@pytest.mark.parametrize("name", ["lstm", "transformer", "gpt2"])
def test_embeddings_are_read_times_the_root_of_the_width(name):
    family, config = load("models", name), get_config().model
    config.name, config.width, config.transformer.heads, config.transformer.kv_heads = name, 16, 4, 2
    config.gpt2.positions = 32
    build_module = {"lstm": "LSTM", "transformer": "Transformer", "gpt2": "GPT2"}[name]
    module = getattr(family, build_module)(
        family.Options.of(config), TextSpec(VOCAB, LENGTH, context_vocab=CONTEXT_VOCAB)
    )
    _, params = make(next(variant for variant in VARIANTS if name in variant and "context" in variant))
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


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_attention_by_chunks_is_attention(chunk):
    rng, (batch, length, prefix) = np.random.default_rng(chunk), (2, 7, 2)
    query = jnp.asarray(rng.normal(size=(batch, length, 4, 6)), jnp.float32)
    key, value = (jnp.asarray(rng.normal(size=(batch, prefix + length, 2, 6)), jnp.float32) for _ in range(2))
    slot = jnp.broadcast_to(prefix + jnp.arange(length)[None, :], (batch, length))
    first = jnp.asarray([[2, 2, 2, 5, 5, 5, 5], [2, 3, 4, 4, 4, 4, 4]])
    slots = attention.Slots(slot, first, jnp.full(batch, prefix))

    def loss(chunk, query, key, value):
        attended = attention.attend(query, key, value, slots, "xla", chunk)
        return jnp.sum(attended**2), attended

    one, whole = (
        jax.jit(jax.value_and_grad(functools.partial(loss, size), argnums=(0, 1, 2), has_aux=True))(query, key, value)
        for size in (chunk, 0)
    )
    jax.tree.map(lambda x, y: close(x, y, 1e-5), one, whole)
    # By hand: the third query of the second row sees the context and itself.
    scores = np.einsum("hd,khd->hk", query[1, 2], np.repeat(key[1, [0, 1, 4]], 2, 1)) / np.sqrt(6)
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    close(one[0][1][1, 2], np.einsum("hk,khd->hd", weights, np.repeat(value[1, [0, 1, 4]], 2, 1)), 1e-5)


def test_memory_of_attention_grows_with_the_length_and_not_with_its_square():
    def temporary(length):
        x = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)
        places = jax.ShapeDtypeStruct((1, length), jnp.int32)

        def loss(query, key, value, slot):
            slots = attention.Slots(slot, jnp.zeros_like(slot), jnp.zeros(1, jnp.int32))
            return jnp.sum(attention.attend(query, key, value, slots, "xla", 64) ** 2)

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x, places).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(2048) < 2.2 * temporary(1024)
