"""Quality against coverage over temperatures and nuclei, and the best quality at one coverage."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import decode, losses, sharding, sums, worlds
from gentrain.datasets.build import Data
from gentrain.datasets.spec import TextSpec
from gentrain.datasets.tokenizers import split_words
from gentrain.errors import ConfigError
from gentrain.evaluators.base import Evaluator, decode_rows, make_draw, name_values, sample_rows, with_company
from gentrain.evaluators.texts import FEWEST, Rows, choose_rows, draw_rows
from gentrain.metrics import intervals, text
from gentrain.metrics.frontiers import least_under
from gentrain.metrics.intervals import Interval
from gentrain.metrics.text import Grams
from gentrain.models.base import SequenceModel
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

BEST = "the highest BLEU-4 over {} where self-BLEU-4 is at most that of real text"
NUMBERS = {
    "bleu_4_by_temperature": Metric("0 to 1", "higher", BEST.format("temperatures")),
    "bleu_4_by_top_p": Metric("0 to 1", "higher", BEST.format("top-p's, and beyond them temperatures above 1")),
}
LEAST = Metric("nats/token", "lower", "the least nll_oracle over temperatures where nll_test is at most the bound")
METRICS = {
    "frontier/bleu_4@p<top_p>": Metric("0 to 1", None, "BLEU-4 against held-out text, of samples from a nucleus"),
    "frontier/self_bleu_4@p<top_p>": Metric("0 to 1", None, "BLEU-4 of samples from a nucleus against the others"),
    "frontier/bleu_4@<temperature>": Metric("0 to 1", None, "BLEU-4 against held-out text, at a temperature"),
    "frontier/self_bleu_4@<temperature>": Metric("0 to 1", None, "BLEU-4 of samples against others, at a temperature"),
    "frontier/self_bleu_4_bound": Metric("0 to 1", None, "self-BLEU-4 of real text", level=True),
    **with_company("frontier", NUMBERS, "of real text"),
    "frontier/nll_oracle@<temperature>": Metric("nats/token", None, "-E log P of samples at a temperature"),
    "frontier/nll_test@<temperature>": Metric("nats/token", None, "-E_P log Q at a temperature"),
    "frontier/nll_test_bound": Metric("nats/token", None, "up to which the least nll_oracle is looked for", level=True),
    **with_company("frontier", {"nll_oracle_by_temperature": LEAST}),
}
ORDER = 4  # of n-grams
SIGNS = np.asarray([[-1.0], [1.0]])  # the lower the better: -BLEU-4, self-BLEU-4
DRAWN = 512  # texts that are drawn at once


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """What samples are worth at every temperature, and what they are worth at one coverage.

    One point of quality and coverage ranks nothing, since sharpening a law buys the one with the other (Caccia et al.,
    2020). The curve over temperatures is the same for a model and for its sharpened self, and so is its best quality
    under a bound on coverage, by straight lines between the settings: a number that ranks, with its 95 % interval.

    In a known world, nats a token: frontier/nll_oracle@T = -E log P of samples from softmax(logits / T), low for likely
    ones, and frontier/nll_test@T = -E_P log Q_T of held-out data, low for a model that covers them; and
    frontier/nll_oracle_by_temperature, the least of the first where the second is at most frontier/nll_test_bound; nan
    where no temperature covers the data so well, and too high where the lowest one still does. See `of_text` for other
    text. Both are from evaluate.examples samples a setting. Raises ConfigError for other data.
    """
    known = config.data.name.startswith("world:")
    return of_world(config, objective, data, mesh) if known else of_text(config, objective, data, mesh)


def of_world(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """By likelihoods. The interval is by a jackknife over the samples and over the split, all of which is read."""
    world = worlds.of(config, "evaluator 'frontier'")
    if not isinstance(world, worlds.SequenceWorld):
        raise ConfigError(f"evaluator 'frontier' is for sequences; {config.data.name} has points")
    model, split, size = objective.model, data.split(config.evaluate.split), config.data.batch_size
    assert isinstance(model, SequenceModel)
    count, options = config.evaluate.examples, config.evaluate.frontier
    temperatures, given = sorted(map(float, options.temperatures)), options.nll_bound
    draw, rows = make_draw(model, mesh, world.length, law=at_temperature), sample_rows(mesh, count)

    def score_batch(params, batch):
        """-log Q of each row at each temperature, nats, and its tokens."""
        logits, tokens, mask = model.apply(params, model.inputs(batch["tokens"])), batch["tokens"], batch["mask"]
        nats = lambda temperature: jnp.sum(losses.token_nll(logits / temperature, tokens)[0] * mask, axis=1)
        return jax.lax.map(nats, jnp.asarray(temperatures)), mask.sum(1)

    score = sharding.compile_on(mesh, score_batch)

    @cache
    def bound() -> float:
        real = choose_rows(split, config.data.world.held_out, world.length).tokens
        return given or float(np.log(world.vocab) - world.log_prob(real).mean() / world.length) / 2

    def evaluate(params, key):
        generator = params["generator"]
        put = (sharding.put(split.batch(number), mesh, size) for number in range(split.batches))
        parts = map(jax.device_get, sums.paced(score(generator, batch) for batch in put))
        nats, tokens = (np.concatenate(part, axis=-1).astype(np.float64) for part in zip(*parts, strict=True))
        nats, tokens = nats[:, tokens > 0], tokens[tokens > 0]  # a split's last batch is filled up
        keys = [jax.random.fold_in(key, number) for number in range(len(temperatures))]
        drawn = (draw(generator, k, rows, None, t) for k, t in zip(keys, temperatures, strict=True))
        oracle = np.stack([-world.log_prob(np.asarray(each.tokens)[:count]) / world.length for each in drawn])

        def points(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            """nll_oracle and nll_test, (2, settings)."""
            return np.stack([oracle[:, ours].mean(1), nats[:, theirs].sum(1) / tokens[theirs].sum()])

        least = intervals.jackknife_pair(
            lambda ours, theirs: least_under(points(ours, theirs), bound()), count, len(tokens)
        )
        values = name_values("frontier", {"nll_oracle_by_temperature": least}) | {"frontier/nll_test_bound": bound()}
        everything = points(np.ones(count, bool), np.ones(len(tokens), bool))
        return values | name_points(("nll_oracle", "nll_test"), everything, [f"{t:g}" for t in temperatures])

    return evaluate


def of_text(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """By n-grams: frontier/bleu_4@T against held-out text and frontier/self_bleu_4@T, low where samples differ, at
    temperatures T, and at @pP of samples from the likeliest tokens that make up the share P of the law.

    frontier/bleu_4_by_temperature is the highest of the first where the second is at most frontier/self_bleu_4_bound,
    that of as many texts of train: what a model's samples are worth once they are as varied as real text;
    frontier/bleu_4_by_top_p likewise, along top-p's and then temperatures above 1, so that it is there for models that
    are sharper than text at temperature 1 too. nan where no setting is as varied. The floor is the BLEU-4 of the texts
    of train, which a perfect model has at temperature 1. Intervals are by a jackknife over the samples and over the
    texts of the bound.

    n-grams are of words and punctuation marks, or of characters where held-out texts have hardly two words. They see
    no more than four words, and no meaning. Raises ConfigError for data that are not text without contexts, and for
    few texts.
    """
    spec, model, options = data.spec, objective.model, config.evaluate.frontier
    if not isinstance(spec, TextSpec) or spec.context_vocab:
        raise ConfigError("evaluator 'frontier' is for text without contexts")
    assert isinstance(model, SequenceModel)
    temperatures, top_ps = sorted(map(float, options.temperatures)), sorted(options.top_ps)
    settings: list[tuple[Callable, float]] = [(at_temperature, temperature) for temperature in temperatures]
    settings += [(of_nucleus, top_p) for top_p in top_ps]
    names = [f"{temperature:g}" for temperature in temperatures] + [f"p{top_p:g}" for top_p in top_ps]
    paths = {"bleu_4_by_temperature": list(range(len(temperatures)))}
    if top_ps:
        beyond = range(temperatures.index(1), len(temperatures))
        paths["bleu_4_by_top_p"] = [*range(len(temperatures), len(names)), *beyond]
    draws = {law: make_draw(model, mesh, spec.length, end=spec.end, law=law) for law in (at_temperature, of_nucleus)}
    size = sharding.round_up(mesh, DRAWN)
    held_out = choose_rows(data.split(config.evaluate.split), config.evaluate.examples, spec.length)
    many = len(held_out.tokens)
    if many < FEWEST:
        raise ConfigError(f"evaluator 'frontier' needs at least {FEWEST} texts of {config.evaluate.split}, not {many}")
    split = choose_unit(decode_rows(spec, *held_out))

    def count(rows: Rows) -> Counted:
        corpora = ([split(each) for each in decode_rows(spec, *texts)] for texts in (rows, held_out))
        own, references = text.count_grams(text.number_words(*corpora), ORDER)
        return Counted(own, text.bleu(own, references)[-1])

    @cache
    def real() -> Counted:
        return count(choose_rows(data.split("train"), many, spec.length))

    def evaluate(params, key):
        def draw(number: int) -> Rows:
            law, setting = settings[number]
            own = jax.random.fold_in(key, number)
            return draw_rows(lambda rows: draws[law](params["generator"], own, rows, None, setting), many, size)

        counted = [count(draw(number)) for number in range(len(settings))]
        found, (floor, bound) = constrain(counted, real(), paths), points_of([real()])[:, 0].tolist()
        values = name_values("frontier", found, dict.fromkeys(found, floor)) | {"frontier/self_bleu_4_bound": bound}
        return values | name_points(("bleu_4", "self_bleu_4"), points_of(counted), names)

    return evaluate


class Counted(NamedTuple):
    """Of texts: their n-grams by order, and the BLEU-4 of each against held-out text (n,)."""

    grams: list[Grams]
    bleu: np.ndarray


def points_of(counted: Sequence[Counted], chosen: np.ndarray | None = None) -> np.ndarray:
    """BLEU-4 and self-BLEU-4 of the chosen texts of each, (2, settings)."""
    chosen = np.ones(len(counted[0].bleu), bool) if chosen is None else chosen
    self_bleu = [text.self_bleu([text.keep(grams, chosen) for grams in each.grams])[-1].mean() for each in counted]
    return np.stack([[each.bleu[chosen].mean() for each in counted], self_bleu])


def constrain(counted: Sequence[Counted], real: Counted, paths: Mapping[str, list[int]]) -> dict[str, Interval]:
    """The highest BLEU-4 along each path of settings where self-BLEU-4 is at most that of real text."""

    def highest(points: np.ndarray, bound: float) -> np.ndarray:
        return np.asarray([-least_under(points[:, path] * SIGNS, bound) for path in paths.values()])

    points, bound = points_of(counted), points_of([real])[1, 0]
    own = intervals.jackknife(lambda chosen: highest(points_of(counted, chosen), bound), len(counted[0].bleu))
    others = intervals.jackknife(lambda chosen: highest(points, points_of([real], chosen)[1, 0]), len(real.bleu))
    ends = zip(*intervals.combine(own.value, own, others), strict=True)
    return {name: Interval(*interval) for name, interval in zip(paths, ends, strict=True)}


def at_temperature(temperature: Array, logits: Array) -> Array:
    """Logits of the law at a temperature."""
    return logits / temperature


def of_nucleus(top_p: Array, logits: Array) -> Array:
    """Logits of the likeliest tokens alone."""
    return decode.filter_logits(logits, top_p=top_p)


def choose_unit(texts: list[str]) -> Callable[[str], list[str]]:
    """What n-grams are of."""
    return split_words if sum(len(split_words(each)) for each in texts) >= 2 * len(texts) else list


def name_points(names: tuple[str, str], points: np.ndarray, settings: list[str]) -> dict[str, float]:
    """What was measured at each setting; points (2, settings)."""
    return {
        f"frontier/{name}@{setting}": float(value)
        for name, values in zip(names, points, strict=True)
        for setting, value in zip(settings, values, strict=True)
    }
