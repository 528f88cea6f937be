"""Sampling: from the law it says, the same whatever the batch, and over at the end token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import decode, plugins
from gentrain.models import SequenceModel, example_keys, shift_right


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
