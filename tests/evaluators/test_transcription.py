"""Error rates and BLEU against counts by hand, on models that answer what they are told to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gentrain import sharding
from gentrain.datasets.build import Data
from gentrain.datasets.spec import Spec, TextSpec
from gentrain.errors import ConfigError
from gentrain.evaluators import transcription
from gentrain.models.base import SequenceModel
from tests.helpers import objective_of

END, LENGTH = 9, 8


def spec(kind: type[Spec] = TextSpec, **changes) -> Spec:
    return kind(**{"vocab": 10, "length": LENGTH, "end": END, "context_vocab": 100} | changes)


def reciter(answers) -> SequenceModel:
    """A model that gives answers[context], each closed by the end token."""
    table = np.full((100, LENGTH + 1), END)
    for context, tokens in answers.items():
        table[context, : len(tokens)] = tokens
    logits = jnp.asarray(np.log(np.eye(10)[table] + 1e-30), jnp.float32)
    return SequenceModel(
        init=lambda key: {},
        apply=None,
        start=lambda params, batch, length, context: (context[:, 0], jnp.zeros((batch,), jnp.int32)),
        step=lambda params, cache, token: ((cache[0], cache[1] + 1), logits[cache]),
        vocab=10,
    )


class Pairs:
    """(context, document) pairs in batches of `rows`, the last one filled up."""

    def __init__(self, pairs, rows):
        self.pairs, self.rows, self.batches = pairs, rows, -(-len(pairs) // rows)

    def batch(self, step):
        tokens, context = np.zeros((self.rows, LENGTH), np.int32), np.zeros((self.rows, 1), np.int32)
        mask = np.zeros((self.rows, LENGTH), bool)
        for row, (asked, document) in enumerate(self.pairs[step * self.rows : (step + 1) * self.rows]):
            closed = [*document, END][:LENGTH]
            tokens[row, : len(closed)], mask[row, : len(closed)], context[row] = closed, True, asked
        return {"tokens": tokens, "mask": mask, "context": context, "row": np.arange(self.rows, dtype=np.int32)}


def measure(config, model, pairs, devices=None, described=None):
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, devices=devices)
    split = Pairs(pairs, config.data.batch_size)
    data = Data(described or spec(), split, {config.evaluate.split: split}.__getitem__, {})  # of no other name
    return transcription.build(config, objective_of(model), data, mesh)({"generator": {}}, jax.random.key(0))


def documents(count, seed=0):
    random = np.random.default_rng(seed)
    return {i: random.integers(0, END, random.integers(4, LENGTH + 1)).tolist() for i in range(count)}


@pytest.mark.parametrize("beam", [1, 3])
def test_what_is_right_has_no_errors(config, beam):
    config.evaluate.transcription.beam, pairs = beam, documents(40)
    measured = measure(config, reciter(pairs), list(pairs.items()))
    assert measured == {
        "valid/token_error_rate": 0.0,
        "valid/sequence_error_rate": 0.0,
        "valid/bleu": pytest.approx(100.0),
    }


def test_errors_are_counted_as_by_hand(config):
    config.evaluate.split = "test"
    cases = {  # answer, document: insertions + deletions + substitutions
        0: ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),  # 0
        1: ([1, 2, 3, 4], [1, 7, 3, 4]),  # 1
        2: ([1, 2, 3, 4], [2, 3, 4]),  # 1
        3: ([3, 4], [1, 2, 3, 4]),  # 2
        4: ([], [5, 6]),  # 2
        5: ([5, 6], []),  # 2
        6: ([0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0]),  # 2
    }
    answers = {case: answer for case, (answer, _) in cases.items()}
    measured = measure(config, reciter(answers), [(case, document) for case, (_, document) in cases.items()])
    assert measured["test/token_error_rate"] == pytest.approx(10 / 24)
    assert measured["test/sequence_error_rate"] == pytest.approx(6 / 7)
    assert 0 < measured["test/bleu"] < 100


def test_edit_distance_is_the_recursive_one():
    def slow(a, b):
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            before, row = row, [i]
            for j, y in enumerate(b, 1):
                row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
        return row[-1]

    random = np.random.default_rng(1)
    ones, others = ([random.integers(0, 3, random.integers(0, 9)) for _ in range(300)] for _ in range(2))
    assert transcription.edit_distances(ones, others).tolist() == list(map(slow, ones, others))


def test_the_closest_of_several_references_counts(config):
    answers = {1: [1, 2, 3, 4, 5], 2: [5, 4, 3, 2, 1], 3: [1, 1, 1, 1]}
    pairs = [
        (1, [6, 6, 6, 6, 6, 6]),
        (1, [7]),
        (2, [5, 4, 3, 2]),  # one insertion too many
        *[(3, [1, 1, 1, 1])] * 16,  # so that the references of 1 come from different batches
        (1, [1, 2, 3, 4, 5]),
        (2, [0, 0, 0]),
    ]
    measured = measure(config, reciter(answers), pairs)
    assert measured["valid/token_error_rate"] == pytest.approx(1 / (5 + 4 + 4))
    assert measured["valid/sequence_error_rate"] == pytest.approx(1 / 3)
    # Of 5+5+4 words 5+4+4 are in a reference, of pairs 4+3+3 of 11, 3+2+2 of 8, 2+1+1 of 5; as long as the closest.
    precisions = [13 / 14, 10 / 11, 7 / 8, 4 / 5]
    assert measured["valid/bleu"] == pytest.approx(100 * np.prod(precisions) ** 0.25)


def test_batches_can_be_fewer(config):
    config.evaluate.batches, pairs = 1, documents(40)
    answers = {i: tokens if i < 16 else [] for i, tokens in pairs.items()}
    assert measure(config, reciter(answers), list(pairs.items()))["valid/sequence_error_rate"] == 0
    config.evaluate.batches = 2
    assert measure(config, reciter(answers), list(pairs.items()))["valid/sequence_error_rate"] == 0.5


@pytest.mark.parametrize("beam", [1, 2])
def test_the_number_of_devices_changes_nothing(config, beam):
    config.evaluate.transcription.beam, pairs = beam, documents(27)
    model = reciter(documents(27, seed=1) | dict(list(pairs.items())[:9]))
    several, one = (measure(config, model, list(pairs.items()), jax.devices()[:n]) for n in (8, 1))
    assert several == one and 0 < one["valid/token_error_rate"] < 1


def test_a_wider_beam_finds_what_greed_misses(config):
    law = np.full((11, 10), 1e-9)
    law[10, [0, 1]], law[0, [END, 2]], law[1, END], law[2, END] = (0.55, 0.45), (0.5, 0.5), 1.0, 1.0  # 10 begins
    logits = jnp.log(jnp.asarray(law, jnp.float32))
    model = reciter({})._replace(step=lambda params, cache, token: (cache, logits[token]))
    for beam, wrong in ((1, 1.0), (2, 0.0)):
        config.evaluate.transcription.beam = beam
        assert measure(config, model, [(0, [1])])["valid/sequence_error_rate"] == wrong


def test_only_text_has_bleu(config):
    pairs = documents(3)
    measured = measure(config, reciter(pairs), list(pairs.items()), described=spec(Spec))
    assert sorted(measured) == ["valid/sequence_error_rate", "valid/token_error_rate"]


@pytest.mark.parametrize(("changes", "missing"), [({"context_vocab": 0}, "data.conditional"), ({"end": None}, "end")])
def test_data_without_questions_or_ends_are_refused(config, changes, missing):
    with pytest.raises(ConfigError, match=rf"{missing}.* out of evaluate.evaluators"):
        measure(config, reciter({}), [(0, [1])], described=spec(**changes))
