"""Sampling: from the law it says, the same whatever the batch, and over at the end token."""

import functools
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import decode, plugins
from gentrain.datasets.spec import TextSpec
from gentrain.losses import token_nll
from gentrain.models.base import SequenceModel, at_positions
from gentrain.models.feeding import example_keys, inputs_after, sequence_starts, shift_right

SPEC = TextSpec(7, 12, end=6, context_vocab=5, context_shape=(3,))
MODELS = ("lstm", "transformer")


def bigram(logits) -> SequenceModel:
    """A model whose next-token law is a row of a table by the token before; row `vocab` is for the beginning."""
    vocab = logits.shape[1]
    return SequenceModel(
        init=lambda key: {},
        apply=lambda params, inputs, context=None, keys=None: logits[inputs],
        start=lambda params, batch, length, context=None: jnp.zeros((batch,), jnp.int32),
        step=lambda params, cache, token: (cache + 1, logits[token]),
        vocab=vocab,
    )


@functools.cache
def build(name, spec=SPEC):
    config = base.get_config()
    config.model.name, config.model.width, config.model.transformer.kv_heads = name, 16, 2
    return plugins.load("models", name).build(config.model, spec)


@functools.cache
def random_params(name, scale=0.7):
    """Random in every leaf, so that laws are far from even."""
    shapes, random = jax.eval_shape(build(name).init, jax.random.key(0)), np.random.default_rng(5)
    return jax.tree.map(lambda x: jnp.asarray(random.normal(0, scale, x.shape), x.dtype), shapes)


@functools.cache
def sampler(name, law=decode.filter_logits):
    """(params, keys, context) -> samples, compiled."""
    model = decode.change_law(build(name), law)
    return jax.jit(
        lambda params, keys, context: decode.sample(model, params, keys, SPEC.length, end=SPEC.end, context=context)
    )


@functools.cache
def teacher_forcing(name):
    """(params, tokens, context) -> log-probability of each token after the true ones, compiled."""

    def log_prob(params, tokens, context):
        logits = build(name).apply(params, shift_right(tokens, SPEC.vocab, None), context)
        return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]

    return jax.jit(log_prob)


def keys_of(rows, seed=3):
    return example_keys(jax.random.key(seed), jnp.asarray(rows))


def contexts(rows):
    """(n, 3): of each row its own."""
    return (jnp.asarray(rows)[:, None] * 2 + jnp.arange(3)[None, :]) % 5


@pytest.mark.parametrize("seed", [0, 1])
def test_tokens_come_from_the_models_law(seed):
    random = np.random.default_rng(seed)
    logits = jnp.asarray(random.normal(size=(5, 4)), jnp.float32) * 1.5
    count = 40_000
    samples = sample_bigrams(logits, keys_of(range(count), seed), 3)
    law = np.asarray(jax.nn.softmax(logits), np.float64)
    joint = law[4][:, None, None] * law[:4][:, :, None] * law[:4][None, :, :]
    cells = np.ravel_multi_index(np.asarray(samples.tokens).T, (4, 4, 4))
    counts = np.bincount(cells, minlength=64)
    deviations = np.sqrt(count * joint * (1 - joint)).ravel()
    assert np.all(np.abs(counts - count * joint.ravel()) < 5 * deviations)
    np.testing.assert_allclose(np.asarray(samples.log_prob).sum(-1), np.log(joint).ravel()[cells], atol=1e-5)


@partial(jax.jit, static_argnums=(2, 3))
def sample_bigrams(logits, keys, length, end=None):
    return decode.sample(bigram(logits), {}, keys, length, end=end)


def test_nothing_follows_the_end_token():
    samples = sample_bigrams(jnp.zeros((4, 3)), keys_of(range(200)), 8, 2)
    tokens, mask = np.asarray(samples.tokens), np.asarray(samples.mask)
    ended = (tokens == 2) & mask
    assert np.all(ended.sum(-1) <= 1) and ended.any()
    after = np.cumsum(ended, axis=-1) - ended > 0
    assert np.array_equal(mask, ~after)
    assert not tokens[after].any() and not np.asarray(samples.log_prob)[after].any()


@pytest.mark.parametrize("name", MODELS)
def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(name):
    def draw(rows):
        return sampler(name)(random_params(name, 0.3), keys_of(rows), contexts(rows)).tokens

    whole, order = np.asarray(draw(range(9))), [7, 2, 0, 5, 1, 8, 3, 6, 4]
    assert np.array_equal(draw(order), whole[order])
    if name == "lstm":  # a batch of another size is another program
        assert np.array_equal(draw([7, 2]), whole[[7, 2]])
    assert len(np.unique(whole, axis=0)) > 4


@pytest.mark.parametrize("name", MODELS)
def test_log_probabilities_are_those_of_teacher_forcing(name):
    params, context = random_params(name, 0.3), contexts(range(9))
    samples = sampler(name)(params, keys_of(range(9)), context)
    forced = teacher_forcing(name)(params, samples.tokens, context)
    assert samples.mask.sum() > 30  # of 9 rows of 12
    np.testing.assert_allclose(samples.log_prob, jnp.where(samples.mask, forced, 0.0), atol=1e-5)


def test_a_token_of_probability_zero_is_never_drawn():
    logits = jnp.asarray([[-jnp.inf, 0.0, -jnp.inf, 1.0, -jnp.inf]])
    uniform = jnp.concatenate([jnp.linspace(0, 1, 999, endpoint=False), jnp.asarray([0.0, 1 - 2**-23])])
    tokens, _ = decode.draw(jnp.repeat(logits, uniform.size, 0), uniform)
    assert set(np.asarray(tokens).tolist()) == {1, 3}


@pytest.mark.parametrize("vocab", [1, 2, 7, 100, 5000])
def test_a_draw_inverts_the_cumulative_distribution(vocab):
    rng = np.random.default_rng(vocab)
    logits, uniform = 3 * rng.normal(size=(300, vocab)), rng.random(300)
    logits[rng.random(logits.shape) < 0.3] = -np.inf
    logits[:, rng.integers(vocab)] = 0.0  # not all of them
    drawn = decode.draw(jnp.asarray(logits, jnp.float32), jnp.asarray(uniform, jnp.float32))
    tokens, log_prob = map(np.asarray, drawn)
    weights = np.exp(logits)
    after = np.take_along_axis(np.cumsum(weights, 1) / weights.sum(1, keepdims=True), tokens[:, None], 1)[:, 0]
    own = np.take_along_axis(weights / weights.sum(1, keepdims=True), tokens[:, None], 1)[:, 0]
    np.testing.assert_allclose(log_prob, np.log(own), atol=1e-5)
    assert (after - own < uniform + 1e-5).all() and (uniform < after + 1e-5).all()


def test_rounding_never_draws_a_token_beyond_the_vocabulary():
    rng = np.random.default_rng(0)
    for vocab in (97, 5000):
        logits = rng.normal(size=(200, vocab))
        logits[:, -20:] = -np.inf
        tokens, _ = decode.draw(jnp.asarray(logits, jnp.float32), jnp.full(200, 1 - 2**-24))
        assert int(tokens.max()) < vocab - 20


def test_the_work_for_every_token_is_done_beforehand_only_where_steps_would_do_more():
    model = plugins.load("models", "tabular").build(base.get_config().model, TextSpec(vocab=5, length=3))
    model = model._replace(fold=lambda params: "folded")
    assert decode.fold(model, "plain", 6) == "folded" and decode.fold(model, "plain", 5) == "plain"


def test_temperature_top_k_and_nucleus():
    logits = jnp.log(jnp.asarray([[0.5, 0.1, 0.25, 0.15]]))

    def law(**options):
        return np.asarray(jax.nn.softmax(decode.filter_logits(logits, **options)))[0]

    np.testing.assert_allclose(law(), [0.5, 0.1, 0.25, 0.15], atol=1e-6)
    np.testing.assert_allclose(law(temperature=0.0), [1, 0, 0, 0])
    squares = np.square([0.5, 0.1, 0.25, 0.15])
    np.testing.assert_allclose(law(temperature=0.5), squares / squares.sum(), atol=1e-6)
    np.testing.assert_allclose(law(top_k=2), [2 / 3, 0, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(law(top_p=0.7), [2 / 3, 0, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(law(top_p=0.76), [0.5 / 0.9, 0, 0.25 / 0.9, 0.15 / 0.9], atol=1e-6)
    np.testing.assert_allclose(law(top_k=3, top_p=0.3), [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(law(top_k=9), law(), atol=1e-6)


def law_by_ranks(logits, temperature, top_k, top_p):
    """One after another, as in transformers' generate: the k likeliest of the law, then the nucleus of those."""
    p = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    order = np.argsort(-p)
    kept = order[:top_k] if top_k else order
    share = p[kept] / p[kept].sum()
    kept = kept[: 1 + np.sum(np.cumsum(share) < top_p)]
    law = np.zeros_like(p)
    law[kept] = p[kept] / p[kept].sum()
    return law


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.6), (4, 1.0), (4, 0.6), (4, 0.9), (7, 0.3), (20, 0.8)])
def test_the_nucleus_is_of_what_top_k_kept(top_k, top_p):
    rows = np.random.default_rng(3).normal(size=(200, 12))
    options = {"temperature": 0.8, "top_k": top_k, "top_p": top_p}
    laws = jax.nn.softmax(decode.filter_logits(jnp.asarray(rows, jnp.float32), **options))
    np.testing.assert_allclose(laws, [law_by_ranks(row, **options) for row in rows], atol=1e-5)


def test_temperature_0_takes_the_first_of_several_maxima():
    logits = jnp.asarray([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 0.0, 2.0], [-jnp.inf, 0.0, -1.0, 0.0]])
    law = jax.nn.softmax(decode.filter_logits(logits, 0.0, top_k=3, top_p=0.5))
    np.testing.assert_array_equal(law, np.eye(4)[np.argmax(np.asarray(logits), axis=1)])


def every_sequence(logits, length, end):
    """{sequence up to and including its end, or full: log-probability} of a bigram table, by enumeration."""
    law = np.asarray(jax.nn.log_softmax(logits), np.float64)
    vocab, log_probs = law.shape[1], {}
    for whole in itertools.product(range(vocab), repeat=length):
        cut = whole[: whole.index(end) + 1] if end in whole else whole
        log_probs[cut] = sum(law[before, token] for before, token in zip((vocab, *cut), cut, strict=False))
    return log_probs


@partial(jax.jit, static_argnums=(1, 2, 3))
def bigram_beams(logits, length, width, end):
    context = jnp.zeros((3, 1), jnp.int32)  # which the model ignores
    return decode.beam_search(bigram(logits), {}, context, length, width, end=end)


def beams(logits, length, width, end=None):
    """Answers of the same model to three contexts that it ignores: (sequences, their log-probabilities)."""
    tokens, mask, log_prob = map(np.asarray, bigram_beams(logits, length, width, end))
    assert not tokens[~mask].any() and not log_prob[~mask].any()
    return [tuple(t[m].tolist()) for t, m in zip(tokens, mask, strict=True)], log_prob.sum(-1)


@pytest.mark.parametrize("end", [None, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_all_sequences_finds_the_likeliest(seed, end):
    length, logits = 4, jnp.asarray(np.random.default_rng(seed).normal(size=(4, 3)) * 2, jnp.float32)
    log_probs = every_sequence(logits, length, end)
    complete = {sequence: p for sequence, p in log_probs.items() if end is None or sequence[-1] == end}
    sequences, found = beams(logits, length, 3**length, end)
    assert sequences == [max(complete, key=complete.get)] * 3
    np.testing.assert_allclose(found, max(complete.values()), atol=1e-5)
    for width in (2, 5):
        sequences, found = beams(logits, length, width, end)
        np.testing.assert_allclose(found, [log_probs[sequence] for sequence in sequences], atol=1e-5)


@functools.cache
def far_params(name):
    """Laws that are far from even, and do not end at once."""
    params = jax.tree.map(lambda leaf: 3 * leaf, jax.jit(build(name).init)(jax.random.key(4)))
    params["output"]["bias"] = jnp.zeros(SPEC.vocab).at[SPEC.end].set(-3.0)
    return params


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [1, 4])
def test_beams_take_their_caches_along_and_one_is_greedy(name, width):
    params, context = far_params(name), jax.random.randint(jax.random.key(5), (9, 3), 0, 5)
    search = jax.jit(
        lambda params, context: decode.beam_search(build(name), params, context, SPEC.length, width, end=SPEC.end)
    )
    found = search(params, context)
    forced = teacher_forcing(name)(params, found.tokens, context)
    np.testing.assert_allclose(found.log_prob, jnp.where(found.mask, forced, 0.0), atol=1e-4)
    assert len(np.unique(found.tokens, axis=0)) > 2
    if width == 1:
        greedy = sampler(name, law=likeliest)(params, keys_of(range(9)), context)
        assert np.array_equal(found.tokens, greedy.tokens) and np.array_equal(found.mask, greedy.mask)


def likeliest(logits):
    return decode.filter_logits(logits, 0.0)


def test_a_wider_beam_sees_past_a_tempting_first_token_and_keeps_an_early_end():
    law = np.asarray([[0.55, 0.45, 0.0], [0.0, 0.1, 0.9], [1.0, 0.0, 0.0], [0.6, 0.4, 0.0]])  # 2 ends, row 3 begins
    logits = jnp.log(jnp.asarray(law + 1e-30, jnp.float32))
    assert beams(logits, 6, 1, end=2)[0][0] == (0, 0, 0, 0, 0, 0)  # greedy never leaves 0
    sequences, log_probs = beams(logits, 6, 3, end=2)
    assert sequences[0] == (1, 2)
    np.testing.assert_allclose(log_probs, np.log(0.4 * 0.9), atol=1e-5)


def sample_by_passes(model, params, choose, rows, length, end, context=None, window=0) -> decode.Samples:
    """What `sample` draws, by passes over `window` positions at once; log_prob by the law of `choose`."""
    starts = sequence_starts(rows, length)

    def finished(tokens, resolved):
        certain = jnp.arange(length)[None, :] < resolved[:, None]
        return (resolved >= length) | jnp.any((tokens == end) & certain, axis=1)

    guess = jnp.zeros((rows, length), jnp.int32)
    recursion = decode.Recursion(model, params, choose, starts, context)
    found = decode.fixed_point(recursion, guess, finished=finished, window=window)
    mask = decode.mask_to_end(found.tokens == end)
    inputs = inputs_after(found.tokens, starts, model.vocab)
    nll = at_positions(
        model, params, lambda logits, t: token_nll(sharpened(logits), t)[0], inputs, found.tokens, context=context
    )
    return decode.Samples(jnp.where(mask, found.tokens, 0), mask, jnp.where(mask, -nll, 0.0))


def sharpened(logits):
    return decode.filter_logits(logits, temperature=0.8, top_k=5)


@pytest.mark.parametrize(("name", "draw", "window"), [("lstm", "inverse_cdf", 0), ("transformer", "gumbel", 5)])
def test_fixed_points_are_samples(name, draw, window):
    """By inverse CDF they are those of `sample` for the same keys; by either they are of the model's law."""
    model, params, rows, length = build(name), random_params(name), 12, SPEC.length
    keys, context = keys_of(range(rows), seed=8), jnp.arange(36).reshape(12, 3) % 5
    choose = decode.make_chooser(draw, keys, length)
    sharp = lambda logits, positions: choose(sharpened(logits), positions)
    starts = sequence_starts(rows, length)
    found, chosen = jax.jit(
        lambda params: (
            sample_by_passes(model, params, sharp, rows, length, SPEC.end, context, window),
            decode.sequential(decode.Recursion(model, params, sharp, starts, context)),
        )
    )(params)
    if draw == "inverse_cdf":
        expected = sampler(name, law=sharpened)(params, keys, context)
        assert np.array_equal(found.tokens, expected.tokens) and np.array_equal(found.mask, expected.mask)
        np.testing.assert_allclose(found.log_prob, expected.log_prob, atol=1e-4)
    assert np.array_equal(np.where(found.mask, chosen, 0), found.tokens)
    assert not found.mask.all() and len(np.unique(found.tokens, axis=0)) > 4
    if window:  # one wrong token, the first of the second window, in a first guess that is right elsewhere
        guess = chosen.at[:, window].set((chosen[:, window] + 1) % SPEC.vocab)
        recursion = decode.Recursion(model._replace(apply=None), params, sharp, starts, context)
        over = lambda _, resolved: resolved >= length
        find = jax.jit(lambda guess: decode.fixed_point(recursion, guess, finished=over, window=window))
        assert np.array_equal(find(guess).tokens, chosen)


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_logits_that_are_kept_are_those_of_each_place(name):
    model, params, rows, length = build(name), random_params(name), 3, SPEC.length
    choose, starts = decode.make_chooser("inverse_cdf", keys_of(range(rows)), length), sequence_starts(rows, length)
    recursion = decode.Recursion(model, params, choose, starts, jnp.arange(9).reshape(rows, 3) % 5)
    logits, chosen = jax.jit(lambda: decode.sequential(recursion, return_logits=True))()
    expected = model.apply(params, inputs_after(chosen, starts, model.vocab), recursion.context)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_chain_takes_a_pass_for_each_link_and_no_row_stops_at_an_end_that_may_change():
    logits = 50 * jnp.eye(6)[jnp.asarray([5, 2, 3, 4, 5, 0, 1])]  # truly 1 2 3 4 5; after a guess of zeros 1 5 5 5 5
    starts, chain = sequence_starts(2, 5), jnp.tile(jnp.arange(1, 6), (2, 1))
    choose = decode.make_chooser("argmax", keys_of(range(2)), 5)

    @jax.jit
    def find(guess, needed):
        over = lambda _, resolved: resolved >= needed
        return decode.fixed_point(decode.Recursion(bigram(logits), {}, choose, starts), guess, finished=over)

    for guess, needed, passes in ((0 * chain, 5, 5), (0 * chain, 3, 3), (chain, 5, 1)):
        found = find(guess, needed)
        assert int(found.passes) == passes and (found.resolved == needed).all()
        assert np.array_equal(found.tokens[:, :needed], chain[:, :needed])
    samples = jax.jit(lambda: sample_by_passes(bigram(logits), {}, choose, 2, 5, 5))()
    assert np.array_equal(samples.tokens, chain) and samples.mask.all()


def test_gumbel_draws_follow_the_law_and_change_less_often():
    count, logits = 40_000, jnp.asarray(np.random.default_rng(2).normal(size=9), jnp.float32)
    keys = keys_of(range(count), seed=1)
    at, near = jnp.zeros((count, 1), jnp.int32), logits + 0.2 * jnp.cos(jnp.arange(9.0))
    changes, law = {}, np.asarray(jax.nn.softmax(logits), np.float64)
    for name in ("gumbel", "inverse_cdf"):
        choose = jax.jit(lambda x, name=name: decode.make_chooser(name, keys, 1)(jnp.tile(x, (count, 1, 1)), at))
        tokens = np.asarray(choose(logits))
        counts = np.bincount(tokens.ravel(), minlength=9)
        assert np.all(np.abs(counts - count * law) < 4.5 * np.sqrt(count * law * (1 - law)))
        changes[name] = (tokens != np.asarray(choose(near))).mean()
    apart = 0.5 * np.abs(np.asarray(jax.nn.softmax(near), np.float64) - law).sum()
    assert apart * 0.9 < changes["gumbel"] < 2 * apart and changes["gumbel"] < changes["inverse_cdf"]
    noise = np.asarray(decode.gumbel(keys[:2], jnp.asarray([[0, 1], [1, 0]]), 9))
    assert len(np.unique(noise)) == 2 * 2 * 9 and np.array_equal(noise[1, 1], decode.gumbel(keys[1:2], at[:1], 9)[0, 0])
