"""The best quality at one coverage: the same for a model and its sharpened self, worse for a model that is worse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import sharding, worlds
from gentrain.datasets.build import build
from gentrain.errors import ConfigError
from gentrain.evaluators import frontier
from gentrain.metrics.frontiers import least_under
from gentrain.models.base import SequenceModel
from gentrain.options.check import validate
from gentrain.sums import declared
from tests.evaluators.test_generators import unigram
from tests.helpers import objective_of

VOCAB, LENGTH, COUNT = 20, 10, 800
TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.15, 1.3, 1.6, 2.0)


@pytest.fixture(scope="module")
def world():
    config = base.get_config()
    config.data.name, config.data.batch_size = "world:markov", 256
    config.data.world.vocab, config.data.world.length, config.data.world.concentration = VOCAB, LENGTH, 0.3
    config.data.world.held_out, config.evaluate.examples = 4096, COUNT
    config.evaluate.frontier.temperatures = TEMPERATURES
    return config


def chain(law) -> SequenceModel:
    """A Markov chain as a model; law (vocab + 1, vocab): after each token, and of the first one."""
    table = jnp.log(jnp.asarray(law, jnp.float32))
    return unigram(law[0])._replace(
        apply=lambda params, inputs, context=None, keys=None: table[inputs],
        step=lambda params, cache, token: (cache, table[token]),
    )


def perfect(config) -> np.ndarray:
    law = worlds.of(config, "a test")
    return np.concatenate([law.transition, law.initial[None]])


def sharpened(law, power):
    return law**power / (law**power).sum(-1, keepdims=True)


def blurred(law, share=0.6):
    """A model that forgets the token before it now and then."""
    return (1 - share) * law + share * law.mean(0, keepdims=True)


def measured(evaluator, config, law):
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, 1, jax.devices()[:1])
    evaluate = evaluator(config, objective_of(chain(law)), build(config, None), mesh)
    values = evaluate({"generator": {}}, jax.random.key(0))
    assert all(declared(name, frontier.METRICS) for name in values)
    return {name.removeprefix("frontier/"): value for name, value in values.items()}


@pytest.fixture(scope="module")
def of_text(world):
    law = perfect(world)
    laws = {"perfect": law, "sharp": sharpened(law, 1.4), "blurred": blurred(law)}
    return {name: measured(frontier.of_text, world, law) for name, law in laws.items()}


def test_a_perfect_model_has_the_floor_at_temperature_one(of_text):
    found = of_text["perfect"]
    half = found["bleu_4_by_temperature_high"] - found["bleu_4_by_temperature"]
    assert 0 < half < 0.03 and abs(found["bleu_4@1"] - found["bleu_4_by_temperature_floor"]) < half
    assert abs(found["self_bleu_4@1"] - found["self_bleu_4_bound"]) < half
    for path in ("temperature", "top_p"):
        low, high, floor = (found[f"bleu_4_by_{path}_{end}"] for end in ("low", "high", "floor"))
        assert low < floor < high


def test_a_sharpened_model_is_better_at_temperature_one_and_no_better_at_one_coverage(of_text):
    one, other = of_text["perfect"], of_text["sharp"]
    half = one["bleu_4_by_temperature_high"] - one["bleu_4_by_temperature"]
    assert other["bleu_4@1"] > one["bleu_4@1"] + 2 * half and other["self_bleu_4@1"] > one["self_bleu_4@1"] + 2 * half
    for path in ("temperature", "top_p"):  # its top-p's are all too dull, so that temperatures above 1 count there too
        assert other[f"bleu_4_by_{path}"] == pytest.approx(one["bleu_4_by_temperature"], abs=half)


def test_a_model_that_forgets_is_worse_at_one_coverage_and_a_nucleus_helps_it(of_text):
    noisy, real = of_text["blurred"], of_text["perfect"]["bleu_4_by_temperature_floor"]
    assert noisy["bleu_4_by_temperature_high"] < real
    assert noisy["bleu_4_by_top_p"] > noisy["bleu_4@1"]
    for name in ("bleu_4", "self_bleu_4"):
        dull = [noisy[f"{name}@{setting}"] for setting in ("p0.5", "p0.8", "1")]
        warm = [noisy[f"{name}@{temperature:g}"] for temperature in (0.3, 0.6, 1.0, 1.6)]
        assert dull == sorted(dull, reverse=True) and warm == sorted(warm, reverse=True)


def test_nothing_is_said_of_a_model_that_is_never_as_varied(world):
    dull = np.full((VOCAB + 1, VOCAB), 1e-30)
    dull[:, 3] = 1.0
    found = measured(frontier.of_text, world, dull)
    assert found["self_bleu_4@2"] == 1 and np.isnan(found["bleu_4_by_temperature"])


def exact_curve(law, config, temperatures) -> np.ndarray:
    """nll_oracle and nll_test, (2, temperatures), nats a token, by the laws of each step."""
    real = perfect(config)

    def cross(drawn, scored):
        now, total = np.eye(VOCAB + 1)[-1], 0.0
        for _ in range(LENGTH):
            total -= now @ (drawn * np.log(scored)).sum(1)
            now = np.append(now @ drawn, 0)
        return total / LENGTH

    models = [sharpened(law, 1 / temperature) for temperature in temperatures]
    return np.asarray([[cross(model, real) for model in models], [cross(real, model) for model in models]])


@pytest.mark.parametrize("bound", [0.0, 2.45])
def test_the_least_nll_oracle_is_that_of_the_exact_curve_whatever_a_models_own_temperature(world, bound):
    config = world.copy_and_resolve_references()
    config.evaluate.examples, config.evaluate.frontier.nll_bound = 4000, bound
    law = blurred(perfect(config))
    expected = bound or (exact_curve(perfect(config), config, [1.0])[0, 0] + np.log(VOCAB)) / 2
    fine = least_under(exact_curve(law, config, np.linspace(0.3, 2, 400)), expected)
    for power in (1.0, 1.3):
        found = measured(frontier.build, config, sharpened(law, power))
        assert found["nll_test_bound"] == pytest.approx(expected, abs=0.01)
        name = "nll_oracle_by_temperature"
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"] < found[name] + 0.1
        own = least_under(exact_curve(sharpened(law, power), config, TEMPERATURES), expected)
        assert found[name] == pytest.approx(own, abs=0.03) and own == pytest.approx(fine, abs=0.09)


def test_a_perfect_model_has_the_worlds_entropy_where_the_bound_is_the_entropy(world):
    config = world.copy_and_resolve_references()
    config.evaluate.examples = 4000
    law = perfect(config)
    entropy = exact_curve(law, config, [1.0])[0, 0]
    config.evaluate.frontier.nll_bound = entropy + 0.02
    found = measured(frontier.build, config, law)["nll_oracle_by_temperature"]
    assert entropy - 0.3 < found < entropy + 0.03
    config.evaluate.frontier.nll_bound = entropy - 0.05
    assert np.isnan(measured(frontier.build, config, law)["nll_oracle_by_temperature"])


@pytest.mark.parametrize(
    ("data", "changed", "message"),
    [
        ("surnames", {"nll_bound": 3.0}, r"evaluate\.frontier\.nll_bound=3\.0: expected 0"),
        ("world:markov", {"top_ps": (0.9,)}, r"evaluate\.frontier\.top_ps=\(0\.9,\): expected"),
        ("surnames", {"top_ps": (0.9, 1.0)}, r"from 0\.001 to 0\.999"),
        ("surnames", {"temperatures": (0.5, 0.7)}, "1 among them"),
        ("surnames", {"temperatures": (1.0, 1.0)}, "different numbers"),
        ("digits", {}, "text without contexts"),
    ],
)
def test_mistakes_are_told(data, changed, message):
    config = base.get_config()
    config.data.name, config.evaluate.evaluators = data, ("frontier",)
    config.evaluate.frontier.update(changed)
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_few_texts_are_told(world):
    config = world.copy_and_resolve_references()
    config.evaluate.examples = 30
    with pytest.raises(ConfigError, match="at least 40 texts of valid, not 30"):
        measured(frontier.of_text, config, perfect(config))
