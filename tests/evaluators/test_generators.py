"""The likelihood and samples evaluators on models and data whose answers are known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import sharding
from gentrain.data import Data, Spec
from gentrain.errors import ConfigError
from gentrain.evaluators import likelihood, samples
from gentrain.sums import Images, Texts
from gentrain.models.base import SequenceModel
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


def test_documents_may_be_longer_than_rows_and_pictures_may_not(config, spec, mesh):
    config.sample.length = 3 * spec.length
    endless = np.where(np.arange(spec.vocab) == spec.end, 0, 1)
    draw = samples.build(config, unigram(endless), fake_data(spec, 16), mesh)
    assert draw({"generator": {}}, jax.random.key(0))["samples/length"] == 3 * spec.length
    with pytest.raises(ConfigError, match=f"length={3 * spec.length}"):
        samples.build(config, unigram(endless), fake_data(spec._replace(end=None, kind="image"), 16), mesh)


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


def sure_of(answers, vocab) -> SequenceModel:
    """A model that says answers[context] again and again."""
    logits = np.log(np.eye(vocab)[np.asarray(answers)] + 1e-30)
    return bigram(np.broadcast_to(logits[:, None], (len(answers), vocab + 1, vocab)))


def conditional(config, spec) -> tuple[Spec, Data, np.ndarray]:
    """Three batches with contexts, the last of them filled up; and the contexts of its true rows."""
    size, random = config.data.batch_size, np.random.default_rng(7)
    spec = spec._replace(context_vocab=3, decode_context=lambda context: f"<{context[0]}>")
    data = fake_data(spec, size)
    for batch in data.train.made:
        batch["context"] = random.integers(0, 3, (size, 1)).astype(np.int32)
    data.train.made[-1]["mask"][size // 2 :] = False
    return spec, data, np.concatenate([batch["context"][batch["mask"].any(-1), 0] for batch in data.train.made])


@pytest.mark.parametrize("count", [5, 16, 20, 1000])
def test_samples_answer_the_contexts_of_the_first_rows(config, spec, mesh, count):
    config.sample.count, config.evaluate.split, names = count, "test", []
    spec, data, contexts = conditional(config, spec)
    data = data._replace(split=lambda name: names.append(name) or data.train)
    drawn = samples.build(config, sure_of([2, 0, 1], spec.vocab), data, mesh)({"generator": {}}, jax.random.key(0))
    said = " ".join(["{}"] * spec.length)
    expected = [f"<{c}> -> {said.format(*[(c + 2) % 3] * spec.length)}" for c in contexts[:count]]
    assert drawn["samples"].texts == expected and len(expected) == min(count, 40)
    assert set(names) == {"test"} and drawn["samples/length"] == spec.length


def test_every_sample_has_its_own_draw(config, spec, mesh):
    config.sample.count = 40
    _, data, _ = conditional(config, spec)
    model = bigram(np.zeros((3, spec.vocab + 1, spec.vocab)))
    drawn = samples.build(config, model, data, mesh)({"generator": {}}, jax.random.key(0))
    assert len({text.split(" -> ")[1] for text in drawn["samples"].texts}) > 30


def test_answers_to_pictures_stand_beside_those_of_the_data(config, spec, mesh):
    config.sample.count = 20
    spec, data, contexts = conditional(config, spec)
    data = data._replace(spec=spec._replace(decode_context=lambda context: np.zeros((2, 2, 1), np.uint8)))
    drawn = samples.build(config, sure_of([2, 0, 1], spec.vocab), data, mesh)({"generator": {}}, jax.random.key(0))
    rows = [row for batch in data.train.made for row in zip(batch["tokens"], batch["mask"], strict=True)]
    for text, context, (tokens, mask) in zip(drawn["samples"].texts, contexts, rows, strict=False):
        reference = spec.decode(tokens[mask & (tokens != spec.end)])
        assert text == f"{' '.join([str((context + 2) % 3)] * spec.length)}  (data: {reference})"


def test_sampled_images_are_pictures(config, mesh):
    config.sample.count = 3
    drawn = samples.build(config, unigram([0.5, 0.5]), fake_data(image_spec(), 16), mesh)(
        {"generator": {}}, jax.random.key(0)
    )
    assert isinstance(drawn["samples"], Images) and drawn["samples"].images.shape == (3, 4, 4, 1)
    assert set(np.unique(drawn["samples"].images)) == {0, 255}


def test_images_of_labels_are_pictures_too(config, mesh):
    _, data, _ = conditional(config, image_spec())
    config.sample.count = 9
    drawn = samples.build(config, sure_of([1, 0, 1], 2), data, mesh)({"generator": {}}, jax.random.key(0))
    assert drawn["samples"].images.shape == (9, 4, 4, 1)
    assert drawn["samples"].images[:, 0, 0, 0].tolist() == [255 * (n % data.spec.context_vocab != 1) for n in range(9)]
