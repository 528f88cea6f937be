"""The exposure-bias gap: nothing for a model that is the reference, something for one that is worse off its own way."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import plugins, sharding
from gentrain.datasets import rows
from gentrain.datasets.build import Data
from gentrain.datasets.spec import ImageSpec, TextSpec
from gentrain.errors import ConfigError
from gentrain.evaluators import ngrams
from gentrain.models.base import SequenceModel
from gentrain.options.check import validate
from tests.helpers import objective_of


def bigram(logits) -> SequenceModel:
    """A model whose next-token law is a row of a table by the token before; row `vocab` is for the beginning."""
    return SequenceModel(
        init=lambda key: {},
        apply=lambda params, inputs, context=None, keys=None: logits[inputs],
        start=lambda params, batch, length, context=None: jnp.zeros((batch,), jnp.int32),
        step=lambda params, cache, token: (cache + 1, logits[token]),
        vocab=logits.shape[1],
        end=3,
    )


def text(config, count=600):
    """Documents of three letters and an end, where b is always followed by c in the data."""
    splits = {}
    for seed, name in enumerate(("train", config.evaluate.split)):
        random, documents = np.random.default_rng(seed), []
        for _ in range(count):
            letters = []
            for _ in range(random.integers(2, 8)):
                letters.append(2 if letters and letters[-1] == 1 else int(random.integers(0, 2)))
            documents.append([*letters, 3])
        tokens = np.concatenate(documents)
        offsets = np.concatenate([[0], np.cumsum([len(d) for d in documents])])
        plain = {"labels": np.zeros(0), "contexts": None, "characters": len(tokens)}
        part = rows.lay_out(SimpleNamespace(tokens=tokens, offsets=offsets, **plain), 12, "pad")
        splits[name] = rows.Pass([part], config.data.batch_size, np.arange(config.data.batch_size), 12)
    return Data(TextSpec(4, 12, 3), None, splits.__getitem__, {})


def measured(config, logits, data, devices=1):
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, 1, jax.devices()[:devices])
    build = plugins.load("evaluators", "exposure").build
    return build(config, objective_of(bigram(jnp.asarray(logits))), data, mesh)({"generator": {}}, jax.random.key(0))


@pytest.fixture
def config(config):
    config.evaluate.examples, config.evaluate.exposure.ngram_order, config.evaluate.split = 256, 2, "test"
    return config


def reference(data):
    """The bigram law itself as a table: after each letter, and at a beginning."""
    asked = np.array([0, 0, 1, 0, 2, 0]), np.array([0, 2, 4, 6])
    after = ngrams.conditionals(data.split("train").documents, asked, 4, 2)
    return np.log(np.stack([after[1], after[3], after[5], after[0], after[0]]))  # a, b, c, end (never read), BOS


def test_the_reference_itself_has_no_bias(config):
    data = text(config)
    values = measured(config, reference(data), data)
    assert values["exposure/on_data"] == pytest.approx(0, abs=1e-6) and abs(values["exposure/gap"]) < 1e-6


def test_a_model_that_errs_where_only_it_goes_has_one(config):
    data = text(config)
    logits = reference(data)
    logits[0] = np.log([0.2, 0.1, 0.6, 0.1])  # a is followed by c, which data have after b alone ...
    logits[2] = np.log([0.01, 0.01, 0.97, 0.01])  # ... and c by c
    values = measured(config, logits, data)
    assert values["exposure/gap"] > 0.2 and values["exposure/ratio"] > 1.2
    laws, own = np.exp(reference(data)), np.exp(logits)
    apart = (laws * np.log(laws / own)).sum(-1)  # by the token before
    batches = [data.split("test").batch(number) for number in range(16)]
    tokens, mask = (np.concatenate([batch[name] for batch in batches]) for name in ("tokens", "mask"))
    before = np.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=4)
    assert values["exposure/on_data"] == pytest.approx(apart[before[mask]].mean(), rel=1e-4)
    visits, here = np.zeros(5), np.eye(5)[4]
    for _ in range(12):
        visits, here = visits + here, np.append((here @ own)[:3], [0, 0])
    assert values["exposure/on_model"] == pytest.approx(apart @ visits / visits.sum(), rel=0.05)
    backwards = (own * np.log(own / laws)).sum(-1)
    assert values["exposure/reverse_kl"] == pytest.approx(backwards @ visits / visits.sum(), rel=0.05)
    assert values["exposure/gap"] == pytest.approx(values["exposure/on_model"] - values["exposure/on_data"])
    assert values["exposure/forward_kl"] == values["exposure/on_data"]
    assert values["exposure/ratio"] == pytest.approx(values["exposure/on_model"] / values["exposure/on_data"])
    eight = measured(config, logits, data, devices=8)
    assert all(eight[name] == pytest.approx(value, rel=1e-6) for name, value in values.items())
    config.evaluate.examples = 16
    assert measured(config, logits, data)["exposure/on_model"] != pytest.approx(values["exposure/on_model"], rel=1e-3)


def test_what_it_needs_is_named(config):
    data = text(config)
    for spec in (dataclasses.replace(data.spec, context_vocab=2), ImageSpec(4, 12, shape=(3, 4, 1))):
        with pytest.raises(ConfigError, match="'exposure' is for text without contexts"):
            measured(config, np.zeros((5, 4)), data._replace(spec=spec))
    config = base.get_config()
    config.evaluate.evaluators, config.evaluate.exposure.ngram_order = ("exposure",), 0
    with pytest.raises(ConfigError, match=r"evaluate\.exposure\.ngram_order=0: expected a number above 0"):
        validate(config)
