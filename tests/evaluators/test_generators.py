"""The likelihood and samples evaluators on models and data whose answers are known."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import sharding
from gentrain.datasets.build import Data
from gentrain.datasets.spec import Images, ImageSpec, Spec, Texts
from gentrain.errors import ConfigError
from gentrain.evaluators import likelihood, samples
from gentrain.models.base import SequenceModel
from tests.helpers import objective_of, ragged_batch

SPLITS = ("train", "valid", "test")


def unigram(law, end=None) -> SequenceModel:
    """A model that ignores its inputs."""
    logits = jnp.log(jnp.asarray(law, jnp.float32))
    spread = lambda *shape: jnp.broadcast_to(logits, (*shape, logits.size))
    return SequenceModel(
        init=lambda key: {},
        apply=lambda params, inputs, context=None, keys=None: spread(*inputs.shape),
        start=lambda params, batch, length, context=None: jnp.zeros((batch,)),
        step=lambda params, cache, token: (cache, spread(token.shape[0])),
        vocab=len(law),
        end=end,
    )


class Fake:
    """Three ragged batches as a split; a character is two tokens."""

    def __init__(self, spec, rows, seed):
        self.made = [ragged_batch(spec, rows, 10 * seed + number) for number in range(3)]
        self.batches, self.tokens = 3, int(sum(batch["mask"].sum() for batch in self.made))
        self.characters = self.tokens / 2

    def batch(self, step):
        return self.made[step]


@pytest.fixture
def mesh(config):
    return sharding.make_mesh(config.mesh, config.data.batch_size)


def fake_data(spec, rows) -> Data:
    """Splits that differ by name."""
    splits = {name: Fake(spec, rows, seed) for seed, name in enumerate(SPLITS)}
    return Data(spec, splits["train"], splits.__getitem__, {})


def evaluated(evaluator, config, model, data, mesh):
    return evaluator.build(config, objective_of(model), data, mesh)({"generator": {}}, jax.random.key(0))


def test_likelihood_is_the_mean_over_tokens_in_every_unit(config, spec, mesh):
    law = np.random.default_rng(5).dirichlet(np.ones(spec.vocab))
    data = fake_data(spec, config.data.batch_size)
    nats = {name: [-np.log(law[b["tokens"][b["mask"]]]).sum() for b in data.split(name).made] for name in SPLITS}
    nlls = {}
    for config.evaluate.split in SPLITS:  # each split has numbers of its own
        name = config.evaluate.split
        measured = evaluated(likelihood, config, unigram(law), data, mesh)
        nlls |= {name: measured[f"{name}/nll"]}
        assert nlls[name] == pytest.approx(sum(nats[name]) / data.split(name).tokens, rel=1e-5)
        assert set(measured) == {f"{name}/{unit}" for unit in ("nll", "perplexity", "nats_per_char", "bits_per_char")}
    assert len(set(nlls.values())) == 3
    config.evaluate.split = "valid"
    measured = evaluated(likelihood, config, unigram(law), data, mesh)
    assert measured["valid/perplexity"] == pytest.approx(math.exp(measured["valid/nll"]))
    assert measured["valid/nats_per_char"] == pytest.approx(2 * measured["valid/nll"])
    assert measured["valid/bits_per_char"] == pytest.approx(2 * measured["valid/nll"] / math.log(2))
    config.evaluate.batches, config.evaluate.split = 1, "test"
    measured = evaluated(likelihood, config, unigram(law), data, mesh)
    first = data.split("test").made[0]
    assert measured["test/nll"] == pytest.approx(nats["test"][0] / first["mask"].sum(), rel=1e-5)


def image_spec() -> Spec:
    return ImageSpec(2, 16, shape=(4, 4, 1))


def test_images_are_told_in_bits_a_dimension_and_nats_an_image(config, mesh):
    data = fake_data(image_spec(), config.data.batch_size)
    measured = evaluated(likelihood, config, unigram([0.5, 0.5]), data, mesh)
    assert measured["valid/bits_per_dim"] == pytest.approx(1)
    assert measured["valid/nats_per_image"] == pytest.approx(16 * math.log(2))


def test_documents_may_be_longer_than_rows_and_pictures_may_not(config, spec, mesh):
    config.sample.length = 3 * spec.length
    endless = np.where(np.arange(spec.vocab) == spec.end, 0, 1)
    drawn = evaluated(samples, config, unigram(endless), fake_data(spec, 16), mesh)
    assert drawn["samples/length"] == 3 * spec.length
    with pytest.raises(ConfigError, match=f"length={3 * spec.length}"):
        samples.build(config, objective_of(unigram(endless)), fake_data(image_spec(), 16), mesh)


def test_samples_follow_the_law_the_temperature_and_the_end(config, spec, mesh):
    config.sample.count = 3000
    law = np.asarray([0.4, 0.3, 0.1, 0, 0, 0, 0.2])
    drawn = evaluated(samples, config, unigram(law), fake_data(spec, 16), mesh)
    assert isinstance(drawn["samples"], Texts) and len(drawn["samples"].texts) == 3000
    assert str(spec.end) not in " ".join(drawn["samples"].texts)
    lengths = sum(0.8**k for k in range(spec.length))  # a token at each place that is reached
    assert drawn["samples/length"] == pytest.approx(lengths, rel=0.05)
    assert drawn["samples/entropy"] == pytest.approx(-(law[law > 0] * np.log(law[law > 0])).sum(), rel=0.05)
    for option, value in (("temperature", 0.0), ("top_k", 1), ("top_p", 0.1)):
        config.sample.update({"temperature": 1.0, "top_k": 0, "top_p": 1.0} | {option: value})
        greedy = evaluated(samples, config, unigram(law), fake_data(spec, 16), mesh)
        assert set(greedy["samples"].texts) == {" ".join("0" * spec.length)} and greedy["samples/entropy"] == 0


def bigram(logits, end=None) -> SequenceModel:
    """A model whose law is a row of a table by context and the token before."""
    logits = jnp.asarray(logits, jnp.float32)
    return SequenceModel(
        init=lambda key: {},
        apply=lambda params, inputs, context=None, keys=None: logits[context, inputs],
        start=lambda params, batch, length, context=None: context[:, 0],
        step=lambda params, cache, token: (cache, logits[cache, token]),
        vocab=logits.shape[-1],
        end=end,
    )


def test_context_and_the_token_before_are_what_a_law_depends_on(config, spec, mesh):
    spec = dataclasses.replace(spec, context_vocab=3)
    random = np.random.default_rng(6)
    law = random.dirichlet(np.ones(spec.vocab), (3, spec.vocab + 1))
    data, nats = fake_data(spec, config.data.batch_size), 0.0
    for batch in data.split("valid").made:
        batch["context"] = random.integers(0, 3, (config.data.batch_size, 1)).astype(np.int32)
        before = np.pad(batch["tokens"][:, :-1], ((0, 0), (1, 0)), constant_values=spec.vocab)
        before[before == spec.end] = spec.vocab
        nats -= np.log(law[batch["context"], before, batch["tokens"]])[batch["mask"]].sum()
    measured = evaluated(likelihood, config, bigram(np.log(law), spec.end), data, mesh)
    assert measured["valid/nll"] == pytest.approx(nats / data.split("valid").tokens, rel=1e-5)


def sure_of(answers, vocab) -> SequenceModel:
    """A model that says answers[context] again and again."""
    logits = np.log(np.eye(vocab)[np.asarray(answers)] + 1e-30)
    return bigram(np.broadcast_to(logits[:, None], (len(answers), vocab + 1, vocab)))


def conditional(config, spec) -> tuple[Spec, Data, np.ndarray]:
    """Splits of three batches with contexts, the last of them filled up; and the contexts of test's true rows."""
    size, random = config.data.batch_size, np.random.default_rng(7)
    spec = dataclasses.replace(spec, context_vocab=3, context_names=("<0>", "<1>", "<2>"))
    data, contexts = fake_data(spec, size), {}
    for name in SPLITS:
        made = data.split(name).made
        for batch in made:
            batch["context"] = random.integers(0, 3, (size, 1)).astype(np.int32)
        made[-1]["mask"][size // 2 :] = False
        contexts[name] = np.concatenate([batch["context"][batch["mask"].any(-1), 0] for batch in made])
    assert not np.array_equal(contexts["test"], contexts["valid"])
    return spec, data, contexts["test"]


@pytest.mark.parametrize("count", [5, 16, 20, 1000])
def test_samples_answer_the_contexts_of_the_first_rows(config, spec, mesh, count):
    config.sample.count, config.evaluate.split = count, "test"
    spec, data, contexts = conditional(config, spec)
    drawn = evaluated(samples, config, sure_of([2, 0, 1], spec.vocab), data, mesh)
    said = " ".join(["{}"] * spec.length)
    expected = [f"<{c}> -> {said.format(*[(c + 2) % 3] * spec.length)}" for c in contexts[:count]]
    assert drawn["samples"].texts == expected and len(expected) == min(count, 40)
    assert drawn["samples/length"] == spec.length


def test_every_sample_has_its_own_draw(config, spec, mesh):
    config.sample.count = 40
    _, data, _ = conditional(config, spec)
    model = bigram(np.zeros((3, spec.vocab + 1, spec.vocab)))
    drawn = evaluated(samples, config, model, data, mesh)
    assert len({text.split(" -> ")[1] for text in drawn["samples"].texts}) > 30


def test_answers_to_pictures_stand_beside_those_of_the_data(config, spec, mesh):
    config.sample.count, config.evaluate.split = 20, "test"
    spec, data, contexts = conditional(config, spec)
    data = data._replace(spec=dataclasses.replace(spec, context_shape=(1, 1, 1)))
    drawn = evaluated(samples, config, sure_of([2, 0, 1], spec.vocab), data, mesh)
    rows = [row for batch in data.split("test").made for row in zip(batch["tokens"], batch["mask"], strict=True)]
    for text, context, (tokens, mask) in zip(drawn["samples"].texts, contexts, rows, strict=False):
        reference = spec.decode(tokens[mask & (tokens != spec.end)])
        assert text == f"{' '.join([str((context + 2) % 3)] * spec.length)}  (data: {reference})"


def test_sampled_images_are_pictures(config, mesh):
    config.sample.count = 3
    drawn = evaluated(samples, config, unigram([0.5, 0.5]), fake_data(image_spec(), 16), mesh)
    assert isinstance(drawn["samples"], Images) and drawn["samples"].images.shape == (3, 4, 4, 1)
    assert set(np.unique(drawn["samples"].images)) == {0, 255}


def test_images_of_labels_are_pictures_too(config, mesh):
    _, data, _ = conditional(config, image_spec())
    config.sample.count = 9
    drawn = evaluated(samples, config, sure_of([1, 0, 1], 2), data, mesh)
    assert drawn["samples"].images.shape == (9, 4, 4, 1)
    assert drawn["samples"].images[:, 0, 0, 0].tolist() == [255 * (n % data.spec.context_vocab != 1) for n in range(9)]
