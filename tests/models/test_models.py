"""What every sequence model promises, checked on random tiny instances: invariants, never golden numbers."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from configs.base import TRANSFORMER_RULES, get_config
from gentrain import sharding
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.models import attention
from gentrain.models.base import before_logits, known_logits
from gentrain.models.layers import keep_mask
from gentrain.options.check import validate
from tests.models.helpers import (
    BATCH,
    BOS,
    CONTEXT_VOCAB,
    LENGTH,
    PICTURE,
    VARIANTS,
    VOCAB,
    build,
    changed,
    close,
    decode,
    draw,
    dropout_keys,
    loss_and_gradient,
    make,
    one_hot,
    put,
)

variants = pytest.mark.parametrize("variant", VARIANTS)
of_attention = pytest.mark.parametrize("variant", [name for name in VARIANTS if "lstm" not in name])
all_families = pytest.mark.parametrize("variant", ["lstm", "transformer", "gpt2"])
with_context = pytest.mark.parametrize("variant", [name for name in VARIANTS if "context" in name])
unseen = pytest.mark.parametrize("variant", [name for name in VARIANTS if "begin unseen" in name])


@variants
def test_a_token_is_seen_from_its_position_on_and_not_before(variant):
    model, params = make(variant)
    inputs, context = draw(variant)
    logits = model.apply(params, inputs, context)
    assert logits.shape == (BATCH, LENGTH, VOCAB)
    for t in (0, 3, LENGTH - 1):
        other = put(inputs, (inputs[:, t] + 1) % VOCAB, np.s_[:, t])
        assert (changed(model.apply(params, other, context), logits) == (np.arange(LENGTH) >= t)[None, :]).all()


@unseen
def test_a_begin_that_is_not_seen_leaves_the_tokens_as_without_it(variant):
    model, params = make(variant)
    inputs, context = draw(variant)
    alone, begun = model.apply(params, inputs, context), put(inputs, BOS, np.s_[:, 0])
    after = model.apply(params, np.concatenate([begun[:, :1], inputs[:, :-1]], axis=1), context)
    close(after[:, 1:], alone[:, :-1])
    other = model.apply(params | {"bos": params["bos"] + 1}, begun, context)
    assert (changed(other, model.apply(params, begun, context)) == (np.arange(LENGTH) == 0)).all()


@with_context
def test_the_order_of_a_context_is_seen(variant):
    model, params = make(variant)
    inputs, context = draw(variant)
    turned = model.apply(params, inputs, context[:, ::-1])
    assert not np.allclose(turned, model.apply(params, inputs, context), atol=1e-3)


@variants
def test_scanned_steps_equal_apply(variant):
    model, params = make(variant)
    inputs, context = draw(variant)
    inputs = put(inputs, BOS, (0, 0), (0, 3), (1, 5), (1, 6))
    close(decode(model, params, inputs, context), model.apply(params, inputs, context))


@variants
def test_a_beginning_forgets_what_came_before_but_not_the_context(variant):
    model, params = make(variant)
    (inputs, context), t = draw(variant), 3
    packed = put(inputs, BOS, np.s_[:, t])
    logits = model.apply(params, packed, context)
    other = put(packed, (packed[:, 1] + 1) % VOCAB, np.s_[:, 1])
    close(model.apply(params, other, context)[:, t:], logits[:, t:], 1e-6)
    alone = np.roll(packed, -t, axis=1)
    close(model.apply(params, alone, context)[:, : LENGTH - t], logits[:, t:])
    if context is not None:
        assert changed(model.apply(params, packed, (context + 1) % CONTEXT_VOCAB), logits).all()


@variants
def test_the_beginning_is_a_token_of_its_own(variant):
    model, params = make(variant)
    inputs, context = draw(variant)
    logits = [
        np.asarray(model.apply(params, put(inputs, token, np.s_[:, 0]), context))[0, 0] for token in range(VOCAB + 1)
    ]
    assert len({row.tobytes() for row in logits}) == VOCAB + 1
    assert params["bos"].shape == (16,) and params["embed"].shape == (VOCAB, 16)


@with_context
@pytest.mark.parametrize("positions", [1, 2])
def test_a_context_changes_its_own_row(variant, positions):
    model, params = make(variant)
    inputs, context = draw(variant, positions)
    logits = model.apply(params, inputs, context)
    for position in range(positions):
        other = put(context, (context[1, position] + 1) % CONTEXT_VOCAB, (1, position))
        only_its_row = np.array([False, True, False])[:, None]
        assert (changed(model.apply(params, inputs, other), logits) == only_its_row).all()


def test_a_missing_context_is_an_error_and_one_too_many_is_ignored():
    model, params = make("lstm tied context")
    inputs, _ = draw("lstm")
    with pytest.raises(ValueError, match="context of 5"):
        model.apply(params, inputs)
    model, params = make("lstm")
    assert not changed(model.apply(params, inputs, inputs), model.apply(params, inputs)).any()


@with_context
def test_rows_of_a_cache_go_their_own_ways(variant):
    """The first dimension of a cache is the batch: rows may be permuted, and may be at different steps."""
    model, params = make(variant)
    inputs, context = draw(variant)
    early, _ = model.step(params, model.start(params, BATCH, LENGTH, context), inputs[:, 0])
    late, logits_1 = model.step(params, early, inputs[:, 1])
    _, logits_2 = model.step(params, late, inputs[:, 2])
    mixed = jax.tree.map(lambda a, b: np.stack([a[2], b[0], b[1]]), *jax.device_get((early, late)))
    _, logits = model.step(params, mixed, np.stack([inputs[2, 1], inputs[0, 2], inputs[1, 2]]))
    logits_1, logits_2 = jax.device_get((logits_1, logits_2))
    close(logits, np.stack([logits_1[2], logits_2[0], logits_2[1]]))


@variants
def test_dtypes(variant):
    model, params = make(variant)
    low, low_params = make(variant, compute_dtype="bfloat16")
    half, half_params = make(variant, param_dtype="bfloat16", compute_dtype="bfloat16")
    inputs, context = draw(variant)
    assert {x.dtype.name for x in jax.tree.leaves(low_params)} == {"float32"}
    assert {x.dtype.name for x in jax.tree.leaves(half_params)} == {"bfloat16"}
    assert jax.eval_shape(decode, half, half_params, inputs, context).dtype == jnp.float32
    logits, low_logits = jax.device_get((model.apply(params, inputs, context), low.apply(params, inputs, context)))
    assert logits.dtype == low_logits.dtype == jnp.float32
    assert 0 < np.sqrt(np.square(logits - low_logits).mean() / np.var(logits)) < 0.03
    unbiased = params | {"output": params["output"] | {"bias": np.zeros(VOCAB, np.float32)}}
    low_logits = np.asarray(low.apply(unbiased, inputs, context))
    assert (low_logits != low_logits.astype(jnp.bfloat16).astype(jnp.float32)).any()  # float32 in truth, not in name
    if "lstm" not in variant:
        cache = jax.eval_shape(functools.partial(low.start, batch=BATCH, length=2), params, context=context)
        assert {x.dtype.name for x in cache["layers"]} == {"bfloat16"}


@pytest.mark.parametrize("remat", ["dots", "full"])
@all_families
def test_rematerialisation_changes_nothing(variant, remat):
    _, params = make(variant)
    inputs, _ = draw(variant)
    plain, other = (make(variant, remat=name, dropout=0.2)[0] for name in ("none", remat))
    a, b = (loss_and_gradient(model)(params, inputs, None, dropout_keys()) for model in (plain, other))
    jax.tree.map(close, a, b)
    saves = ["remat" in str(jax.make_jaxpr(model.apply)(params, inputs)) for model in (plain, other)]
    assert saves == [False, True]


@pytest.mark.parametrize("variant", ["transformer", "gpt2"])
def test_unrolled_layers_equal_scanned_ones(variant):
    _, params = make(variant)
    inputs, _ = draw(variant)
    scanned, unrolled = (make(variant, remat="none", dropout=0.2, **x)[0] for x in ({}, {"scan_layers": False}))
    texts = [model.apply.lower(params, inputs).as_text() for model in (scanned, unrolled)]
    assert ["stablehlo.while" in text for text in texts] == [True, False]
    assert jax.tree.map(jnp.shape, jax.eval_shape(unrolled.init, jax.random.key(0))) == jax.tree.map(jnp.shape, params)
    a, b = (loss_and_gradient(model)(params, inputs, None, dropout_keys()) for model in (scanned, unrolled))
    jax.tree.map(close, a, b)


@variants
def test_dropout_in_a_row_depends_on_its_key_alone(variant):
    model, params = make(variant, dropout=0.4)
    inputs, context = (x if x is None else np.broadcast_to(x[:1], x.shape) for x in draw(variant))
    keys = dropout_keys()
    logits = np.asarray(model.apply(params, inputs, context, keys))
    assert changed(logits[1:], logits[:1].repeat(2, 0)).all()
    close(logits[::-1], model.apply(params, inputs, context, keys[::-1]))
    others = put(inputs, (inputs[1:] + 1) % VOCAB, np.s_[1:]), context, dropout_keys(2).at[0].set(keys[0])
    close(logits[0], model.apply(params, *others)[0])
    plain, _ = make(variant)
    assert changed(plain.apply(params, inputs, context), logits).all()


@all_families
def test_no_dropout_code_without_keys_or_rate(variant):
    (plain, params), (model, _) = make(variant), make(variant, dropout=0.4)
    inputs, keys = draw(variant)[0], dropout_keys()
    programs = [(model, keys), (model, None), (plain, keys), (plain, None)]
    draws = ["random_bits" in str(jax.make_jaxpr(m.apply)(params, inputs, None, k)) for m, k in programs]
    assert draws == [True, False, False, False]


def test_dropped_activations_are_unbiased_and_differ_between_sites():
    keys = jax.random.split(jax.random.key(3), 50)
    mask = jax.jit(lambda site: keep_mask(keys, site, 0.2, (20, 10), jnp.dtype("float32")))
    one, two = np.asarray(mask(1)), np.asarray(mask(2))
    assert set(np.unique(one)) == {0, np.float32(1 / 0.8)}
    assert abs(one.mean() - 1) < 0.03 and abs((one * two).mean() - 1) < 0.06


def test_the_parameters_of_the_transformer_match_the_sharding_rules():
    _, params = make("transformer", width=32, layers=3)
    shapes = {"/".join(k.key for k in path): x.shape for path, x in jax.tree.leaves_with_path(params)}
    matched = {path: rule for path in shapes for rule, axes in TRANSFORMER_RULES if re.search(rule, path)}
    assert set(matched.values()) == {rule for rule, _ in TRANSFORMER_RULES}
    assert {path: shapes[path] for path in matched} == {
        "embed": (VOCAB, 32),
        "layers/query/kernel": (3, 32, 32),
        "layers/key/kernel": (3, 32, 16),
        "layers/value/kernel": (3, 32, 16),
        "layers/out/kernel": (3, 32, 32),
        "layers/gate/kernel": (3, 32, 96),
        "layers/up/kernel": (3, 32, 96),
        "layers/down/kernel": (3, 96, 32),
    }
    assert set(shapes) - set(matched) == {
        "bos",
        "norm/scale",
        "output/kernel",
        "output/bias",
        "layers/attention_norm/scale",
        "layers/mlp_norm/scale",
    }


def test_the_kernels_of_gpt2_match_the_sharding_rules_but_where_heads_would_be_split():
    """Its queries, keys and values are one kernel, whose parts along tensor would be no whole heads."""
    _, params = make("gpt2")
    kernels = [sharding.path_name(path) for path, _ in jax.tree.leaves_with_path(params["layers"])]
    kernels = [f"layers/{path}" for path in kernels if path.endswith("kernel")]
    matched = {path for path in kernels for rule, _ in TRANSFORMER_RULES if re.search(rule, path)}
    assert set(kernels) - matched == {"layers/qkv/kernel"}


@all_families
def test_kernels_start_with_the_variance_of_their_fan_in_and_tables_of_the_width(variant):
    model, _ = make(variant, width=64, tie_embeddings=variant == "lstm")
    key = jax.random.key(4, impl="unsafe_rbg")  # which compiles faster
    params = jax.device_get(jax.jit(model.init)(key))
    for path, x in jax.tree.leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if "kernel" in name:
            gain = 1 / np.sqrt(2 * 2) if re.search("out'|down'", name) else 1
            assert abs(x.std() * np.sqrt(x.shape[-2]) / gain - 1) < 0.15, name
    assert abs(params["embed"].std() * np.sqrt(64) - 1) < 0.15
    assert ("kernel" in params["output"]) == (variant != "lstm")


@pytest.mark.parametrize("variant", ["lstm", "gpt2", *(name for name in VARIANTS if "context" in name)])
def test_every_parameter_learns(variant):
    model, params = make(variant)
    inputs, context = draw(variant)
    _, gradient = loss_and_gradient(model)(params, put(inputs, BOS, np.s_[:, 0]), context)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(jax.device_get(gradient)))


@with_context
def test_shard_map_and_vmap(variant):
    model, params = make(variant)
    inputs, context = draw(variant)
    want = loss_and_gradient(model)(params, inputs, context)
    rows, all_of_it = PartitionSpec("data"), PartitionSpec()
    specs = {"in_specs": (all_of_it, rows, rows), "out_specs": all_of_it, "check_vma": False}
    mapped = jax.jit(jax.shard_map(loss_and_gradient(model), mesh=sharding.one_device(), **specs))
    jax.tree.map(close, mapped(params, inputs, context), want)
    alone = jax.jit(jax.vmap(lambda *row: model.apply(params, *row)[0]))(inputs[:, None], context[:, None])
    close(alone, model.apply(params, inputs, context))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("width", 20, r"model\.transformer\.heads=4: .* even"),
        ("width", 18, r"model\.transformer\.heads=4: expected a divisor of model\.width=18"),
        ("gpt2.heads", 3, r"model\.gpt2\.heads=3: expected a divisor of model\.width=128"),
        ("gpt2.attention", "cudnn", "'xla' with model.compute_dtype='float32' and heads of 32 numbers"),
        ("transformer.kv_heads", 3, r"kv_heads=3: expected a divisor of model\.transformer\.heads=4"),
        ("transformer.remat", "some", "one of none, dots, full"),
        ("transformer.attention", "cudnn", "'xla' with model.compute_dtype='float32'"),
    ],
)
def test_impossible_settings_are_config_errors(key, value, text):
    config = get_config()
    config.model.name = "gpt2" if key.startswith("gpt2") else "transformer"
    config.update_from_flattened_dict({f"model.{key}": value})
    with pytest.raises(ConfigError, match=text):
        validate(config)


@of_attention
def test_a_piece_goes_on_from_anywhere(variant):
    """Rows at different places; what the cache held from there on is forgotten; beginnings are seen."""
    model, params = make(variant)
    inputs, context = draw(variant)
    inputs = put(inputs, BOS, (0, 0), (0, 3), (1, 4))
    whole = np.asarray(model.apply(params, inputs, context))
    wrong = np.where(np.arange(LENGTH)[None, :] < 5, inputs, (inputs + 1) % VOCAB)
    cache, _ = model.extend(params, model.start(params, BATCH, LENGTH, context), wrong, np.zeros(BATCH, np.int32))
    at, count = np.asarray([0, 3, 5], np.int32), 3
    piece = np.stack([inputs[row, a : a + count] for row, a in enumerate(at.tolist())])
    cache, logits = jax.device_get(model.extend(params, cache, piece, at))
    for row, a in enumerate(at.tolist()):
        close(logits[row], whole[row, a : a + count])
    _, logits = jax.device_get(model.step(params, cache, np.stack([inputs[0, 3], inputs[1, 6], inputs[2, 7]])))
    close(logits[0], whole[0, 3])
    close(logits[1], whole[1, 6])


@pytest.mark.parametrize("variant", ["lstm", "lstm tied context"])
def test_folded_parameters_step_alike_and_learn_alike(variant):
    model, params = make(variant)
    inputs, context = draw(variant)
    inputs = put(inputs, BOS, (0, 0), (1, 4))

    @functools.partial(jax.jit, static_argnums=0)
    def logits_and_gradient(fold, params):
        def loss(params):
            logits = decode(model, fold(params), inputs, context)
            return jnp.square(logits).mean(), logits

        return jax.grad(loss, has_aux=True)(params)

    jax.tree.map(close, logits_and_gradient(model.fold, params), logits_and_gradient(lambda params: params, params))


@variants
def test_the_logits_of_some_tokens_are_those_among_all(variant):
    model, params = make(variant)
    inputs, context = jax.tree.map(jnp.asarray, draw(variant))
    tokens = inputs % model.vocab

    def loss(params, alone):
        x = before_logits(model, params, inputs, context)
        if alone:
            of_tokens = model.logits_of(params, x, tokens)
        else:
            of_tokens = jnp.take_along_axis(model.logits(params, x), tokens[..., None], axis=-1)[..., 0]
        return jnp.sum(of_tokens**2), of_tokens

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    jax.tree.map(close, gradient(params, True), gradient(params, False))


@variants
@pytest.mark.parametrize("bias", [True, False])
def test_the_head_is_what_makes_the_logits(variant, bias):
    model, params = make(variant, output_bias=bias)
    x = np.random.default_rng(0).normal(size=(BATCH, LENGTH, 16)).astype(np.float32)
    kernel, of_symbols = model.head(params)
    assert (of_symbols is not None) == bias
    close(x @ kernel + (of_symbols if bias else 0), jax.jit(model.logits)(params, x))


@variants
def test_known_logits_have_the_gradient_of_those_that_are_made(variant):
    model, params = make(variant)
    inputs, context = jax.tree.map(jnp.asarray, draw(variant))
    weights = jax.random.normal(jax.random.key(0), (*inputs.shape, model.vocab))

    def loss(known, params):
        x = before_logits(model, params, inputs, context)
        logits = known_logits(model, params, x, 0 * weights) if known else model.logits(params, x)
        return jnp.sum(logits * weights)

    of_made, of_known = (jax.jit(jax.grad(functools.partial(loss, known)))(params) for known in (False, True))
    jax.tree.map(close, of_known, of_made)


@variants
def test_a_mixture_of_one_token_is_that_token(variant):
    model, params = make(variant)
    inputs, context = draw(variant)
    inputs = put(inputs, BOS, (0, 0), (1, 4))
    weights = one_hot(inputs)
    close(model.apply(params, weights, context), model.apply(params, inputs, context))
    close(decode(model, params, weights, context), model.apply(params, inputs, context))
    half = 0.5 * weights + 0.5 * one_hot((inputs + 1) % VOCAB)
    assert changed(model.apply(params, half, context), model.apply(params, inputs, context))[2].all()


@pytest.mark.parametrize("name", ["lstm", "transformer", "gpt2"])
def test_a_picture_is_read_where_it_is_given(name):
    model, params = make(name, **PICTURE)
    rng = np.random.default_rng(0)
    inputs, pictures = draw(name)[0], rng.integers(0, 256, (BATCH, 9, 14, 2)).astype(np.uint8)
    logits = model.apply(params, inputs, pictures)
    close(decode(model, params, inputs, pictures), logits)
    if name != "lstm":
        cache = jax.device_get(model.start(params, BATCH, LENGTH, pictures))
        assert (cache["prefix"] == 3 * 4).all()  # 9 5 3, 14 7 4
        assert cache["layers"][0].shape[2] == 3 * 4 + LENGTH
    for place in ((0, 0), (8, 13), (4, 7)):
        other = put(pictures, pictures[(1, *place)] + np.uint8(100), (1, *place))
        only_its_row = np.array([False, True, False])[:, None]
        assert (changed(model.apply(params, inputs, other), logits) == only_its_row).all()


@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 64), (2, 2, 128)])
def test_the_kernel_for_tpus_computes_attention(heads, kv_heads, size):
    rng, (batch, length) = np.random.default_rng(size), (2, 256)
    query, key, value, weight = (
        jnp.asarray(rng.normal(size=(batch, length, count, size)), jnp.float32)
        for count in (heads, kv_heads, kv_heads, heads)
    )
    slot = np.broadcast_to(np.arange(length, dtype=np.int32), (batch, length))
    first = np.maximum.accumulate(np.where(rng.random((batch, length)) < 0.02, slot, 0), axis=1)
    slots = attention.Slots(*map(jnp.asarray, (slot, first, np.zeros(batch, np.int32))))

    def by_kernel(*arrays):
        return attention.splash(*arrays, slots.first, interpret=True)

    def by_xla(*arrays):
        return attention.attend(*arrays, slots, "xla", 100)

    np.testing.assert_allclose(by_kernel(query, key, value), by_xla(query, key, value), atol=1e-5)
    one, other = (
        jax.grad(lambda *arrays, of=of: jnp.sum(of(*arrays) * weight), (0, 1, 2))(query, key, value)
        for of in (by_kernel, by_xla)
    )
    for by_one, by_other in zip(one, other, strict=True):
        np.testing.assert_allclose(by_one, by_other, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "words"),
    [(TextSpec(VOCAB, 200), "data.length=200"), (TextSpec(VOCAB, 256, context_vocab=3), "with contexts")],
)
@pytest.mark.parametrize("family", ["transformer", "gpt2"])
def test_the_kernel_for_tpus_is_refused_data_that_it_cannot_take(spec, words, family):
    options = {"heads": 1, "width": 64, "attention": "splash"} | ({"kv_heads": 1} if family == "transformer" else {})
    with pytest.raises(ConfigError, match=f"{family}.attention.*{words}"):
        build(spec, family, **options)


@pytest.mark.parametrize(
    ("context", "positions", "words"),
    [
        ({}, 0, "data.length=8"),
        ({"context_vocab": 5, "context_shape": (3,)}, 3, "data.length=8 after a context of 3"),
        (PICTURE, 3 * 4, "data.length=8 after a context of 12"),  # 9 5 3, 14 7 4
    ],
)
def test_gpt2_is_refused_rows_of_more_positions_than_it_has(context, positions, words):
    spec = TextSpec(VOCAB, LENGTH, **{name: context[name] for name in context if name.startswith("context")})
    needed = positions + LENGTH
    build(spec, "gpt2", positions=needed)
    with pytest.raises(ConfigError, match=rf"gpt2\.positions={needed - 1}: expected {needed} or more, for {words}$"):
        build(spec, "gpt2", positions=needed - 1)


def test_fused_attention_is_asked_for_where_it_runs(monkeypatch):
    options = {"heads": 2, "kv_heads": 2, "attention": "cudnn", "compute_dtype": "bfloat16", "layers": 1}
    with pytest.raises(ConfigError, match="'cudnn': expected 'xla', since this is no NVIDIA GPU but 'cpu'"):
        build(TextSpec(VOCAB, LENGTH), "transformer", **options)
    asked, attend = [], jax.nn.dot_product_attention

    def spy(*arrays, implementation, **options):
        asked.append((implementation, *options))
        return attend(*arrays, implementation="xla", **options)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", spy)
    model = build(TextSpec(VOCAB, LENGTH), "transformer", **options)
    inputs = np.full((BATCH, LENGTH), BOS, np.int32)
    params = jax.eval_shape(model.init, jax.random.key(0))
    asked.clear()
    jax.eval_shape(model.apply, params, inputs)
    assert set(asked) == {("cudnn", "mask")}
    asked.clear()
    cache = jax.eval_shape(lambda params: model.start(params, BATCH, LENGTH), params)
    jax.eval_shape(model.step, params, cache, inputs[:, 0])
    assert set(asked) == {("xla", "mask")}
    # One document a row takes no mask, and is the same up to rounding.
    whole = build(TextSpec(VOCAB, LENGTH, one_document=True), "transformer", **options)
    inputs = jnp.asarray(put(inputs, 0, (slice(None), slice(1, None))))
    params = model.init(jax.random.key(0))
    want = model.apply(params, inputs)
    asked.clear()
    close(whole.apply(params, inputs), want, 2e-2)
    assert set(asked) == {("cudnn", "is_causal")}
