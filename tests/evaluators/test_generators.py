"""The likelihood and samples evaluators on models and data whose answers are known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import sharding
from gentrain.data import Data, Spec
from gentrain.evaluators import likelihood, samples
from gentrain.metrics import Images, Texts
from gentrain.models import SequenceModel
from tests.helpers import ragged_batch


def unigram(law) -> SequenceModel:
    """A model that ignores its inputs."""
    logits = jnp.log(jnp.asarray(law, jnp.float32))
    spread = lambda *shape: jnp.broadcast_to(logits, (*shape, logits.size))
    return SequenceModel(
        init=lambda key: {},
        apply=lambda params, inputs, context=None, keys=None: spread(*inputs.shape),
        start=lambda params, batch, length, context=None: jnp.zeros((batch,)),
        step=lambda params, cache, token: (cache, spread(token.shape[0])),
        vocab=len(law),
    )


class Fake:
    """Three ragged batches as a split; a character is two tokens."""

    def __init__(self, spec, rows):
        self.made = [ragged_batch(spec, rows, seed) for seed in range(3)]
        self.batches, self.tokens = 3, int(sum(batch["mask"].sum() for batch in self.made))
        self.characters = self.tokens / 2

    def batch(self, step):
        return self.made[step]


@pytest.fixture
def mesh(config):
    return sharding.make_mesh(config.mesh, config.data.batch_size)


def fake_data(spec, rows) -> Data:
    split = Fake(spec, rows)
    return Data(spec, split, lambda name: split, {})


def test_likelihood_is_the_mean_over_tokens_in_every_unit(config, spec, mesh):
    law = np.random.default_rng(5).dirichlet(np.ones(spec.vocab))
    data = fake_data(spec, config.data.batch_size)
    nats = [-np.log(law[batch["tokens"][batch["mask"]]]).sum() for batch in data.train.made]
    measured = likelihood.build(config, unigram(law), data, mesh)({"generator": {}}, jax.random.key(0))
    assert measured["valid/nll"] == pytest.approx(sum(nats) / data.train.tokens, rel=1e-5)
    assert measured["valid/perplexity"] == pytest.approx(math.exp(measured["valid/nll"]))
    assert measured["valid/nats_per_char"] == pytest.approx(2 * measured["valid/nll"])
    assert measured["valid/bits_per_char"] == pytest.approx(2 * measured["valid/nll"] / math.log(2))
    config.evaluate.batches, config.evaluate.split = 1, "test"
    measured = likelihood.build(config, unigram(law), data, mesh)({"generator": {}}, jax.random.key(0))
    assert measured["test/nll"] == pytest.approx(nats[0] / data.train.made[0]["mask"].sum(), rel=1e-5)


def image_spec() -> Spec:
    return Spec(2, 16, None, "image", lambda tokens: (tokens * 255).astype(np.uint8).reshape(4, 4, 1))


def test_images_are_told_in_bits_a_dimension_and_nats_an_image(config, mesh):
    data = fake_data(image_spec(), config.data.batch_size)
    measured = likelihood.build(config, unigram([0.5, 0.5]), data, mesh)({"generator": {}}, jax.random.key(0))
    assert measured["valid/bits_per_dim"] == pytest.approx(1)
    assert measured["valid/nats_per_image"] == pytest.approx(16 * math.log(2))


def test_samples_follow_the_law_the_temperature_and_the_end(config, spec, mesh):
    config.sample.count = 3000
    law = np.asarray([0.4, 0.3, 0.1, 0, 0, 0, 0.2])
    drawn = samples.build(config, unigram(law), fake_data(spec, 16), mesh)({"generator": {}}, jax.random.key(0))
    assert isinstance(drawn["samples"], Texts) and len(drawn["samples"].texts) == 3000
    assert str(spec.end) not in " ".join(drawn["samples"].texts)
    lengths = sum(0.8**k for k in range(spec.length))  # a token at each place that is reached
    assert drawn["samples/length"] == pytest.approx(lengths, rel=0.05)
    assert drawn["samples/entropy"] == pytest.approx(-(law[law > 0] * np.log(law[law > 0])).sum(), rel=0.05)
    for option, value in (("temperature", 0.0), ("top_k", 1), ("top_p", 0.1)):
        config.sample.update({"temperature": 1.0, "top_k": 0, "top_p": 1.0} | {option: value})
        greedy = samples.build(config, unigram(law), fake_data(spec, 16), mesh)({"generator": {}}, jax.random.key(0))
        assert set(greedy["samples"].texts) == {" ".join("0" * spec.length)} and greedy["samples/entropy"] == 0


def bigram(logits) -> SequenceModel:
    """A model whose law is a row of a table by context and the token before."""
    logits = jnp.asarray(logits, jnp.float32)
    return SequenceModel(
        init=lambda key: {},
        apply=lambda params, inputs, context=None, keys=None: logits[context, inputs],
        start=lambda params, batch, length, context=None: context[:, 0],
        step=lambda params, cache, token: (cache, logits[cache, token]),
        vocab=logits.shape[-1],
    )


def test_context_and_the_token_before_are_what_a_law_depends_on(config, spec, mesh):
    spec = spec._replace(context_vocab=3)
    random = np.random.default_rng(6)
    law = random.dirichlet(np.ones(spec.vocab), (3, spec.vocab + 1))
    data, nats = fake_data(spec, config.data.batch_size), 0.0
    for batch in data.train.made:
        batch["context"] = random.integers(0, 3, (config.data.batch_size, 1)).astype(np.int32)
        before = np.pad(batch["tokens"][:, :-1], ((0, 0), (1, 0)), constant_values=spec.vocab)
        before[before == spec.end] = spec.vocab
        nats -= np.log(law[batch["context"], before, batch["tokens"]])[batch["mask"]].sum()
    measured = likelihood.build(config, bigram(np.log(law)), data, mesh)({"generator": {}}, jax.random.key(0))
    assert measured["valid/nll"] == pytest.approx(nats / data.train.tokens, rel=1e-5)


def test_samples_go_round_the_contexts(config, spec, mesh):
    config.sample.count, spec = 5, spec._replace(context_vocab=3)
    logits = np.broadcast_to(np.log(np.eye(3, spec.vocab) + 1e-30)[:, None], (3, spec.vocab + 1, spec.vocab))
    drawn = samples.build(config, bigram(logits), fake_data(spec, 16), mesh)({"generator": {}}, jax.random.key(0))
    assert [text[0] for text in drawn["samples"].texts] == ["0", "1", "2", "0", "1"]


def test_sampled_images_are_pictures(config, mesh):
    config.sample.count = 3
    drawn = samples.build(config, unigram([0.5, 0.5]), fake_data(image_spec(), 16), mesh)(
        {"generator": {}}, jax.random.key(0)
    )
    assert isinstance(drawn["samples"], Images) and drawn["samples"].images.shape == (3, 4, 4, 1)
    assert set(np.unique(drawn["samples"].images)) == {0, 255}
