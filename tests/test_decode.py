"""Sampling: from the law it says, the same whatever the batch, and over at the end token."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import decode, plugins
from gentrain.models.base import SequenceModel, example_keys, shift_right


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


@pytest.mark.parametrize("seed", [0, 1])
def test_tokens_come_from_the_models_law(seed):
    random = np.random.default_rng(seed)
    logits = jnp.asarray(random.normal(size=(5, 4)), jnp.float32) * 1.5
    count = 40_000
    drawn = jax.jit(lambda keys: decode.sample(bigram(logits), {}, keys, 3))(
        example_keys(jax.random.key(seed), jnp.arange(count))
    )
    law = np.asarray(jax.nn.softmax(logits), np.float64)
    joint = law[4][:, None, None] * law[:4][:, :, None] * law[:4][None, :, :]
    cells = np.ravel_multi_index(np.asarray(drawn.tokens).T, (4, 4, 4))
    counts = np.bincount(cells, minlength=64)
    deviations = np.sqrt(count * joint * (1 - joint)).ravel()
    assert np.all(np.abs(counts - count * joint.ravel()) < 5 * deviations)
    np.testing.assert_allclose(np.asarray(drawn.log_prob).sum(-1), np.log(joint).ravel()[cells], atol=1e-5)


def test_nothing_follows_the_end_token():
    logits = jnp.zeros((4, 3))
    drawn = decode.sample(bigram(logits), {}, example_keys(jax.random.key(0), jnp.arange(200)), 8, end=2)
    tokens, mask = np.asarray(drawn.tokens), np.asarray(drawn.mask)
    ended = (tokens == 2) & mask
    assert np.all(ended.sum(-1) <= 1) and ended.any()
    after = np.cumsum(ended, axis=-1) - ended > 0
    assert np.array_equal(mask, ~after)
    assert not tokens[after].any() and not np.asarray(drawn.log_prob)[after].any()


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(name, config, spec):
    model = plugins.load("models", name).build(config.model, spec)
    params = model.init(jax.random.key(0))
    draw = lambda rows: decode.sample(
        model, params, example_keys(jax.random.key(3), jnp.asarray(rows)), spec.length, end=spec.end
    )
    whole, part = draw(range(9)), draw([7, 2])
    assert np.array_equal(whole.tokens[jnp.asarray([7, 2])], part.tokens)
    assert len(np.unique(whole.tokens, axis=0)) > 4


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_log_probabilities_are_those_of_teacher_forcing(name, config, spec):
    model = plugins.load("models", name).build(config.model, spec)
    params = model.init(jax.random.key(1))
    drawn = decode.sample(model, params, example_keys(jax.random.key(2), jnp.arange(6)), spec.length)
    logits = model.apply(params, shift_right(drawn.tokens, spec.vocab, None))
    forced = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn.tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(drawn.log_prob, forced, atol=1e-5)


def test_a_token_of_probability_zero_is_never_drawn():
    logits = jnp.asarray([[-jnp.inf, 0.0, -jnp.inf, 1.0, -jnp.inf]])
    uniform = jnp.concatenate([jnp.linspace(0, 1, 999, endpoint=False), jnp.asarray([0.0, 1 - 2**-23])])
    drawn = decode.draw(jnp.repeat(logits, uniform.size, 0), uniform)
    assert set(np.asarray(drawn).tolist()) == {1, 3}


def test_rounding_never_draws_a_token_beyond_the_vocabulary():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(200, 5000)), jnp.float32)
    assert int(decode.draw(logits, jnp.full(200, 1 - 2**-23)).max()) < 5000


def test_temperature_top_k_and_nucleus():
    logits = jnp.log(jnp.asarray([[0.5, 0.1, 0.25, 0.15]]))
    law = lambda **options: np.asarray(jax.nn.softmax(decode.filtered(logits, **options)))[0]
    np.testing.assert_allclose(law(), [0.5, 0.1, 0.25, 0.15], atol=1e-6)
    np.testing.assert_allclose(law(temperature=0.0), [1, 0, 0, 0])
    squares = np.square([0.5, 0.1, 0.25, 0.15])
    np.testing.assert_allclose(law(temperature=0.5), squares / squares.sum(), atol=1e-6)
    np.testing.assert_allclose(law(top_k=2), [2 / 3, 0, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(law(top_p=0.7), [2 / 3, 0, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(law(top_p=0.76), [0.5 / 0.9, 0, 0.25 / 0.9, 0.15 / 0.9], atol=1e-6)
    np.testing.assert_allclose(law(top_k=3, top_p=0.3), [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(law(top_k=9), law(), atol=1e-6)


def every_sequence(logits, length, end):
    """{sequence up to and including its end, or full: log-probability} of a bigram table, by enumeration."""
    law = np.asarray(jax.nn.log_softmax(logits), np.float64)
    vocab, found = law.shape[1], {}
    for whole in itertools.product(range(vocab), repeat=length):
        cut = whole[: whole.index(end) + 1] if end in whole else whole
        found[cut] = sum(law[before, token] for before, token in zip((vocab, *cut), cut, strict=False))
    return found


def beams(logits, length, width, end=None, rows=3):
    """Answers of the same model to `rows` contexts that it ignores: (sequences, their log-probabilities)."""
    context = jnp.zeros((rows, 1), jnp.int32)
    found = decode.beam_search(bigram(logits), {}, context, length, width, end=end)
    assert not np.asarray(found.tokens)[~np.asarray(found.mask)].any()
    assert not np.asarray(found.log_prob)[~np.asarray(found.mask)].any()
    sequences = [tuple(t[m].tolist()) for t, m in zip(np.asarray(found.tokens), np.asarray(found.mask), strict=True)]
    return sequences, np.asarray(found.log_prob).sum(-1)


@pytest.mark.parametrize("end", [None, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_all_sequences_finds_the_likeliest(seed, end):
    length, logits = 4, jnp.asarray(np.random.default_rng(seed).normal(size=(4, 3)) * 2, jnp.float32)
    known = every_sequence(logits, length, end)
    asked = {sequence: p for sequence, p in known.items() if end is None or sequence[-1] == end}
    sequences, log_probs = beams(logits, length, 3**length, end)
    assert sequences == [max(asked, key=asked.get)] * 3
    np.testing.assert_allclose(log_probs, max(asked.values()), atol=1e-5)
    for width in (2, 5):
        sequences, log_probs = beams(logits, length, width, end)
        np.testing.assert_allclose(log_probs, [known[sequence] for sequence in sequences], atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "transformer"])
@pytest.mark.parametrize("width", [1, 4])
def test_beams_take_their_caches_along_and_one_is_greedy(name, width, config, spec):
    spec = spec._replace(context_vocab=5, context_shape=(3,))
    model = plugins.load("models", name).build(config.model, spec)
    params = jax.tree.map(lambda leaf: 3 * leaf, model.init(jax.random.key(4)))  # laws that are far from even
    params["output"]["bias"] = jnp.zeros(spec.vocab).at[spec.end].set(-3.0)  # and do not end at once
    context = jax.random.randint(jax.random.key(5), (6, 3), 0, 5)
    found = decode.beam_search(model, params, context, spec.length, width, end=spec.end)
    forced = jax.nn.log_softmax(model.apply(params, shift_right(found.tokens, spec.vocab, None), context))
    forced = jnp.take_along_axis(forced, found.tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(found.log_prob, jnp.where(found.mask, forced, 0.0), atol=1e-4)
    assert len(np.unique(found.tokens, axis=0)) > 2
    if width == 1:
        keys, likeliest = example_keys(jax.random.key(0), jnp.arange(6)), lambda logits: decode.filtered(logits, 0.0)
        greedy = decode.sample(model, params, keys, spec.length, end=spec.end, context=context, law=likeliest)
        assert np.array_equal(found.tokens, greedy.tokens) and np.array_equal(found.mask, greedy.mask)


def test_a_wider_beam_sees_past_a_tempting_first_token_and_keeps_an_early_end():
    law = np.asarray([[0.55, 0.45, 0.0], [0.0, 0.1, 0.9], [1.0, 0.0, 0.0], [0.6, 0.4, 0.0]])  # 2 ends, row 3 begins
    logits = jnp.log(jnp.asarray(law + 1e-30, jnp.float32))
    assert beams(logits, 6, 1, end=2)[0][0] == (0, 0, 0, 0, 0, 0)  # greedy never leaves 0
    sequences, log_probs = beams(logits, 6, 3, end=2)
    assert sequences[0] == (1, 2)
    np.testing.assert_allclose(log_probs, np.log(0.4 * 0.9), atol=1e-5)


@pytest.mark.parametrize(("name", "draw", "window"), [("lstm", "inverse_cdf", 0), ("transformer", "gumbel", 5)])
def test_samples_in_parallel_are_samples(name, draw, window, config, spec):
    """By inverse CDF they are those of `sample` for the same keys; by either they are of the model's law."""
    spec = spec._replace(context_vocab=5, context_shape=(3,))
    model = plugins.load("models", name).build(config.model, spec)
    random = np.random.default_rng(5)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.7, x.shape), x.dtype), shapes)
    keys = example_keys(jax.random.key(8), jnp.arange(12))
    law, context = partial(decode.filtered, temperature=0.8, top_k=5), jnp.arange(36).reshape(12, 3) % 5
    options = {"end": spec.end, "law": law, "context": context}
    found = jax.jit(
        lambda keys: decode.sample_parallel(model, params, keys, spec.length, draw=draw, window=window, **options)
    )(keys)
    if draw == "inverse_cdf":
        expected = jax.jit(lambda keys: decode.sample(model, params, keys, spec.length, **options))(keys)
        assert np.array_equal(found.tokens, expected.tokens) and np.array_equal(found.mask, expected.mask)
        np.testing.assert_allclose(found.log_prob, expected.log_prob, atol=1e-4)
    choose = decode.make_chooser(draw, keys, spec.length)
    begins = jnp.broadcast_to(jnp.arange(spec.length)[None, :] == 0, found.tokens.shape)
    own = lambda logits, at: choose(law(logits), at)
    chosen = jax.jit(lambda: decode.sequential(model, params, own, begins, context))()
    assert np.array_equal(np.where(found.mask, chosen, 0), found.tokens)
    assert not found.mask.all() and len(np.unique(found.tokens, axis=0)) > 4
    if window:  # one wrong token, the first of the second window, in a first guess that is right elsewhere
        guess = chosen.at[:, window].set((chosen[:, window] + 1) % spec.vocab)
        piecewise, over = model._replace(apply=None), lambda _, resolved: resolved >= spec.length
        find = partial(decode.fixed_point, piecewise, params, own, begins, finished=over, context=context)
        assert np.array_equal(jax.jit(lambda: find(guess, window=window))().tokens, chosen)


def test_a_chain_takes_a_pass_for_each_link_and_no_row_stops_at_an_end_that_may_change():
    logits = 50 * jnp.eye(6)[jnp.asarray([5, 2, 3, 4, 5, 0, 1])]  # truly 1 2 3 4 5; after a guess of zeros 1 5 5 5 5
    keys, begins = example_keys(jax.random.key(0), jnp.arange(2)), jnp.zeros((2, 5), bool).at[:, 0].set(True)
    choose, chain = decode.make_chooser("argmax", keys, 5), jnp.tile(jnp.arange(1, 6), (2, 1))
    for guess, needed, passes in ((0 * chain, 5, 5), (0 * chain, 3, 3), (chain, 5, 1)):
        over = lambda _, resolved, needed=needed: resolved >= needed
        found = decode.fixed_point(bigram(logits), {}, choose, begins, guess, finished=over)
        assert int(found.passes) == passes and (found.resolved == needed).all()
        assert np.array_equal(found.tokens[:, :needed], chain[:, :needed])
    drawn = decode.sample_parallel(bigram(logits), {}, keys, 5, end=5, draw="argmax")
    assert np.array_equal(drawn.tokens, chain) and drawn.mask.all()


def test_gumbel_draws_follow_the_law_and_change_less_often():
    count, logits = 40_000, jnp.asarray(np.random.default_rng(2).normal(size=9), jnp.float32)
    keys = example_keys(jax.random.key(1), jnp.arange(count))
    at, near = jnp.zeros((count, 1), jnp.int32), logits + 0.2 * jnp.cos(jnp.arange(9.0))
    changes = {}
    for name in ("gumbel", "inverse_cdf"):
        choose = jax.jit(lambda logits, name=name: decode.make_chooser(name, keys, 1)(jnp.tile(logits, (count, 1, 1)), at))
        law, drawn = np.asarray(jax.nn.softmax(logits), np.float64), np.asarray(choose(logits))
        counts = np.bincount(drawn.ravel(), minlength=9)
        assert np.all(np.abs(counts - count * law) < 4.5 * np.sqrt(count * law * (1 - law)))
        changes[name] = (drawn != np.asarray(choose(near))).mean()
    apart = 0.5 * np.abs(np.asarray(jax.nn.softmax(near), np.float64) - law).sum()
    assert apart * 0.9 < changes["gumbel"] < 2 * apart and changes["gumbel"] < changes["inverse_cdf"]
    noise = np.asarray(decode.gumbel(keys[:2], jnp.asarray([[0, 1], [1, 0]]), 9))
    assert len(np.unique(noise)) == 2 * 2 * 9 and np.array_equal(noise[1, 1], decode.gumbel(keys[1:2], at[:1], 9)[0, 0])
