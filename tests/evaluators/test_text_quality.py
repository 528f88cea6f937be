"""The quality of text: what it says of samples that are known to be good, dull, noisy or copied, and of its judge."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import plugins, sharding
from gentrain.datasets.build import build
from gentrain.errors import ConfigError
from gentrain.evaluators import judge as judges
from gentrain.evaluators import text_quality
from gentrain.evaluators.judge import Judge
from gentrain.evaluators.texts import Rows, choose_rows
from gentrain.metrics import manifolds
from gentrain.models.base import before_logits
from gentrain.options.check import validate
from gentrain.sums import declared
from tests.evaluators.test_generators import unigram
from tests.helpers import objective_of

VOCAB, LENGTH, COUNT = 7, 12, 120


def chain(**changed):
    """Sentences of a Markov chain, in which the word before says much of the next."""
    config = base.get_config()
    config.data.name, config.data.batch_size, config.seed = "world:markov", 32, 3
    config.data.world.vocab, config.data.world.length, config.data.world.held_out = VOCAB, LENGTH, 150
    config.evaluate.examples, config.evaluate.text_quality.judge_steps = COUNT, 60
    config.update_from_flattened_dict(changed)
    return config


@pytest.fixture(scope="module")
def optimised():
    """The judge learns in seconds only where it is compiled with care."""
    quick = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture(scope="module")
def reference(optimised):
    config = chain()
    data = build(config, None)
    return text_quality.Reference(config, data, data.spec)


@pytest.fixture(scope="module")
def real(reference):
    return choose_rows(reference.train, COUNT, LENGTH)


@pytest.fixture(scope="module")
def found(reference, real):
    """The numbers of four kinds of samples."""
    random = np.random.default_rng(0)
    kinds = {
        "noise": random.permuted(real.tokens, axis=1),  # the words of each sentence, in any order
        "dull": np.repeat(reference.held_out.tokens[:1], COUNT, axis=0),
        "copied": real.tokens,
    }
    return {kind: reference.measure(Rows(tokens, real.mask)) for kind, tokens in kinds.items()}


def test_samples_that_are_text_of_train_have_the_floor(reference, found):
    exceptions = {"copied_span", "copied_whole", "forward_perplexity", "nearest_train"}
    assert reference.floors.keys() == found["copied"].keys() == text_quality.NUMBERS.keys()
    for name, interval in found["copied"].items():
        if name not in exceptions:
            assert interval.value == pytest.approx(reference.floors[name]), name
    assert found["copied"]["copied_whole"].value == 1 and found["copied"]["copied_span"].value == LENGTH
    assert reference.floors["copied_whole"] < 0.05 and reference.floors["copied_span"] < LENGTH - 3
    assert found["copied"]["nearest_train"].value < 1e-6 < reference.floors["nearest_train"]


def test_noise_is_heard_by_its_ngrams_and_by_the_judge(reference, found):
    noise, floors = found["noise"], reference.floors
    assert noise["jsd_1"].value == pytest.approx(floors["jsd_1"]) and noise["jsd_2"].low > floors["jsd_2"]
    for name in ("forward_perplexity", "reverse_perplexity", "jsd_3", "frechet", "nearest_train"):
        assert noise[name].low > floors[name], name
    for name in ("bleu_3", "self_bleu_4", "ms_jaccard_3", "precision"):
        assert noise[name].high < floors[name], name


def test_one_sentence_over_and_over_is_good_but_dull(reference, found):
    dull, floors = found["dull"], reference.floors
    assert dull["bleu_5"].value == dull["self_bleu_5"].value == 1 and dull["precision"].value == 1
    assert dull["recall"].value < 0.1 and dull["distinct_2"].high < floors["distinct_2"]
    assert dull["reverse_perplexity"].low > 2 * floors["reverse_perplexity"]
    assert dull["mauve"].high < floors["mauve"] / 2


def test_samples_without_a_word_are_nothing_good(reference):
    empty = text_quality.shares([[]] * COUNT, reference.held_out_words)
    empty |= text_quality.copies([[]] * COUNT, reference.train_words)
    assert all(np.isnan(empty[f"{name}_2"].value) for name in ("distinct", "jsd"))
    for name in ("bleu_2", "self_bleu_2", "ms_jaccard_2", "copied_span", "copied_whole"):
        assert empty[name] == (0, 0, 0), name


def test_a_verdict_is_said_beside_real_text():
    values = {"quality/self_bleu_4": 0.4, "quality/self_bleu_4_floor": 0.3, "quality/bleu_4": 0.25}
    assert text_quality.verdict(values) == ""
    values["quality/bleu_4_floor"] = 0.35
    assert text_quality.verdict(values) == "BLEU-4 0.250 and self-BLEU-4 0.400, of real text 0.350 and 0.300"


def test_an_evaluator_says_all_numbers_with_their_intervals_and_they_are_declared(no_mesh):
    config = chain(**{"evaluate.text_quality.judge_steps": 0, "evaluate.examples": 50})
    data, mesh = build(config, None), sharding.make_mesh(config.mesh, config.data.batch_size)
    model = unigram(np.full(VOCAB, 1 / VOCAB))
    evaluate = text_quality.build(config, objective_of(model), data, mesh)
    values = evaluate({"generator": {}}, jax.random.key(0))
    names = [name for name in values if not name.endswith(("_low", "_high", "_floor"))]
    assert len(values) == 4 * len(names) and "quality/self_bleu_4" in names and "quality/mauve" not in names
    for name in names:
        assert values[f"{name}_low"] <= values[name] <= values[f"{name}_high"]
    assert all(declared(name, text_quality.METRICS) for name in values)
    assert values == evaluate({"generator": {}}, jax.random.key(0))
    assert values["quality/jsd_2_low"] > values["quality/jsd_2_floor"]


def test_a_judge_learns_the_law_and_is_kept(optimised, tmp_path, monkeypatch, reference):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path))
    judge, rows = Judge(reference.spec, 40), choose_rows(reference.train, 150, LENGTH)
    fits, fit = [], judge.fit
    monkeypatch.setattr(judge, "fit", lambda rows: fits.append(rows) or fit(rows))
    params = judge.obtain(rows)
    again, other = judge.obtain(rows), judge.obtain(rows._replace(tokens=rows.tokens[::-1]))
    assert len(fits) == 2  # of the same texts once
    one, two, three = (judge.score(each, reference.held_out) for each in (params, again, other))
    np.testing.assert_array_equal(one.nats, two.nats)
    assert not np.array_equal(one.nats, three.nats)
    assert one.nats.sum() / one.tokens.sum() < np.log(VOCAB) - 0.1  # better than not to have learned


def test_scores_are_those_of_the_model_whatever_stands_behind_the_end(reference, monkeypatch):
    judge = Judge(reference.spec, 1)
    params, rows = judge.init(jax.random.key(1)), reference.held_out
    lengths = np.random.default_rng(0).integers(1, LENGTH + 1, len(rows.tokens))
    mask = np.arange(LENGTH) < lengths[:, None]
    scores = judge.score(params, Rows(rows.tokens, mask))
    assert len(jax.local_devices()) == 8
    monkeypatch.setattr(judges, "SCORED", 50)  # 120 rows on three devices, the last of which is filled up
    other = judge.score(params, Rows(np.where(mask, rows.tokens, 0), mask))
    for one, two in zip(scores, other, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert scores.tokens.tolist() == lengths.tolist() and scores.embeddings.shape == (COUNT, judges.WIDTH)
    whole = judge.score(params, rows)
    expected = judge.model.log_prob(params, jnp.asarray(rows.tokens[:3]))
    np.testing.assert_allclose(whole.nats[:3], -np.asarray(expected), rtol=1e-5)


@pytest.mark.parametrize("part", [7, 64, 1000])
def test_nats_of_a_part_at_a_time_are_those_of_all_and_so_is_their_gradient(reference, monkeypatch, part):
    monkeypatch.setattr(judges, "LOGITS", 0)
    monkeypatch.setattr(judges, "FEWEST", part)
    judge, random = Judge(reference.spec, 1), np.random.default_rng(0)
    init = jax.device_get(judge.init(jax.random.key(1)))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf + random.normal(size=leaf.shape) / 10, jnp.float32), init)
    mask = np.arange(LENGTH) < random.integers(1, LENGTH + 1, 20)[:, None]
    batch = {"tokens": jnp.asarray(reference.held_out.tokens[:20]), "mask": jnp.asarray(mask)}

    def by_parts(params):
        states = before_logits(judge.model, params, judge.model.inputs(batch["tokens"]))
        return judge.nats(params, states, batch)

    def at_once(params):
        nll, mask = judge.model.batch_nll(params, batch)
        return nll * mask

    np.testing.assert_allclose(by_parts(params), at_once(params), rtol=1e-5, atol=1e-6)
    weights = jnp.asarray(random.normal(size=mask.shape), jnp.float32)
    one, two = (jax.grad(lambda params, f=f: jnp.sum(weights * f(params)))(params) for f in (by_parts, at_once))
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(np.abs(theirs).max()))


def lines(tmp_path, line, count=300, **changed):
    (tmp_path / "a.txt").write_text("".join(line(number) + "\n" for number in range(count)))
    config = chain(**{"data.text.unit": "line", "data.length": 40, "data.valid_fraction": 0.3, **changed})
    config.data.name = f"text:{tmp_path}/a.txt"
    data = build(config, None)
    return text_quality.Reference(config, data, data.spec)


def test_words_and_punctuation_or_characters(tmp_path):
    reference = lines(tmp_path, lambda number: f"Line {number}, again.")
    assert all(words[0] == "Line" and words[2:] == [",", "again", "."] for words in reference.held_out_words)
    assert len(reference.train_words) + len(reference.held_out_words) > 250
    letters = lines(tmp_path, lambda number: f"x{number}", **{"evaluate.text_quality.unit": "characters"})
    assert all(word[0] == "x" and len(word) <= 4 for word in letters.held_out_words)
    with pytest.raises(ConfigError, match="unit = 'characters'"):
        lines(tmp_path, lambda number: f"x{number}")


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"at least 40 texts: evaluate\.examples = 30, and valid has 150"):
        data = build(config := chain(**{"evaluate.examples": 30}), None)
        text_quality.Reference(config, data, data.spec)
    config = base.get_config()
    config.data.name, config.evaluate.evaluators = "digits", ("text_quality",)
    with pytest.raises(ConfigError, match=r"data\.name='digits': expected text, for evaluate\.text_quality"):
        validate(config)
    with pytest.raises(ConfigError, match="'text_quality' is for text, and the data are images"):
        text_quality.build(config, objective_of(None), build(config, None), None)
    with pytest.raises(ConfigError, match=r"valid has \d+ texts, half of which give the contexts of samples"):
        data = build(config := captions(**{"evaluate.examples": 30}), None)
        text_quality.Reference(config, data, data.spec)


class Letters:
    """Stands for an encoder: how often each letter stands in a text; `kept` are the texts that it was asked to keep."""

    def __init__(self, name):
        self.name, self.kept = name, []

    def __call__(self, texts):
        return np.array([[text.count(letter) for letter in "0123456"] for text in texts], np.float64)

    def obtain(self, texts):
        self.kept.append(len(texts))
        return self(texts)


@pytest.mark.parametrize("judge_steps", [0, 3])
def test_texts_are_compared_by_an_encoder_that_reads_them(judge_steps, monkeypatch):
    monkeypatch.setattr(text_quality, "Sentences", Letters)
    config = chain(**{"evaluate.text_quality.encoder": "some", "evaluate.text_quality.judge_steps": judge_steps})
    data = build(config, None)
    reference = text_quality.Reference(config, data, data.spec)
    real = choose_rows(reference.train, COUNT, LENGTH)
    perplexities = {"forward_perplexity", "reverse_perplexity"} if judge_steps else set()
    found, floors = reference.measure(real), reference.floors
    every = set(text_quality.NUMBERS) - {"forward_perplexity", "reverse_perplexity"}
    assert set(found) == set(floors) == every | perplexities
    letters = np.array([np.bincount(row, minlength=VOCAB) for row in real.tokens], np.float64)
    held_out = np.array([np.bincount(row, minlength=VOCAB) for row in reference.held_out.tokens], np.float64)
    assert found["frechet"].value == floors["frechet"] == pytest.approx(manifolds.frechet(held_out, letters))
    assert found["nearest_train"].value < 1e-6 < floors["nearest_train"]
    noise = Rows(np.random.default_rng(0).permuted(real.tokens, axis=1), real.mask)
    assert reference.measure(noise)["frechet"].value == pytest.approx(floors["frechet"])  # it does not hear their order


def captions(**changed):
    """What is said of pictures: each text has a picture as its context."""
    config = base.get_config()
    config.data.name, config.data.conditional, config.data.length = "captions:digits", True, 30
    config.data.batch_size, config.evaluate.examples, config.model.width = 32, 60, 8
    config.evaluate.text_quality.judge_steps = 0
    config.update_from_flattened_dict(changed)
    return config


def test_samples_are_drawn_to_the_contexts_of_other_held_out_texts(monkeypatch):
    """A generator that says of a picture what the data say has the floor, and none of the texts it is compared with."""
    config = captions()
    data = build(config, None)
    split = data.split("valid")
    whole = split.take(np.arange(len(split.pieces[1]) - 1))
    said = {context.tobytes(): number for number, context in enumerate(whole["context"])}
    assert len(said) == len(whole["tokens"])  # no picture stands there twice
    drawn, compared = [], []

    def draw(params, key, rows, context):
        numbers = np.array([said[np.asarray(picture).tobytes()] for picture in context])
        drawn.extend(numbers)
        return SimpleNamespace(tokens=whole["tokens"][numbers], mask=whole["mask"][numbers])

    monkeypatch.setattr(text_quality, "make_draw", lambda *given, **named: draw)
    monkeypatch.setattr(text_quality, "DRAWN", 32)
    measure = text_quality.Reference.measure
    keep = lambda reference, samples: compared.append(reference.held_out) or measure(reference, samples)
    monkeypatch.setattr(text_quality.Reference, "measure", keep)
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size)
    model = plugins.load("models", "lstm").build(config.model, data.spec)
    values = text_quality.build(config, objective_of(model), data, mesh)({"generator": {}}, jax.random.key(0))
    assert len(set(drawn[:60])) == 60
    rows = {(*tokens,) for tokens in compared[0].tokens.tolist()}
    order = text_quality.shuffled(split)
    assert rows == {(*whole["tokens"][number].tolist(),) for number in order[:60]}
    assert set(drawn[:60]) == set(order[60:120].tolist())
    for name in ("bleu_3", "self_bleu_3", "ms_jaccard_2", "distinct_1"):
        assert values[f"quality/{name}"] == pytest.approx(values[f"quality/{name}_floor"], abs=0.1), name


def test_a_model_with_contexts_is_measured_and_its_judge_has_none(no_mesh):
    config = captions(**{"evaluate.text_quality.judge_steps": 2, "evaluate.examples": 40})
    data = build(config, None)
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size)
    model = plugins.load("models", "lstm").build(config.model, data.spec)
    with sharding.inside(sharding.one_device()):
        params = {"generator": model.init(jax.random.key(0))}
    values = text_quality.build(config, objective_of(model), data, mesh)(params, jax.random.key(1))
    assert {f"quality/{name}" for name in text_quality.NUMBERS} <= set(values)
    assert np.isfinite(values["quality/forward_perplexity"]) and values["quality/jsd_2"] > values["quality/jsd_2_floor"]
