"""How far a model is from a world that is known exactly: over all examples where that can be done, else by samples."""

from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import divergences, sharding, worlds
from gentrain.datasets.build import Data, Split
from gentrain.evaluators.base import Evaluator, make_draw, sample_rows
from gentrain.models.base import Sampler
from gentrain.objectives.base import Objective, Optimum
from gentrain.sums import Metric
from gentrain.worlds.support import Support, support

METRICS = {
    "exact/forward_kl": Metric("nats", "lower", "KL[P||Q], P the world and Q the model"),
    "exact/reverse_kl": Metric("nats", "lower", "KL[Q||P]"),
    "exact/js@<pi>": Metric("nats", None, "JS_pi[P||Q]: its size depends on pi alone near both ends"),
    "exact/njs@<pi>": Metric("nats", "lower", "JS_pi / (pi (1 - pi))"),
    "exact/entropy": Metric("nats", None, "of Q"),
    "exact/total_correlation": Metric("nats", None, "of Q"),
    "exact/marginal_<position>_<token>": Metric("probability", None, "Q(x_position = token)"),
    "exact/max_marginal_error": Metric("probability", "lower", "the largest |Q(x_t = v) - P(x_t = v)|"),
    "exact/max_error": Metric("probability", "lower", "the largest |Q(x) - P(x)|"),
    "exact/exposure_gap": Metric("nats", None, "token KL on Q's prefixes less that on P's"),
    "exact/fixed_point_error": Metric("probability", None, "the largest |Q(x) - Q*(x)|, Q* where theory says it ends"),
    "exact/minimiser_error": Metric("probability", None, "the same, Q* the nearest of the model's family in JS_pi"),
    "exact/excess_njs": Metric("nats", "lower", "JS_pi / (pi (1 - pi)) above that of the nearest of its family"),
    "exact/mean_<axis>": Metric("number", None, "Q's mean"),
    "exact/sd": Metric("number", None, "root of the mean variance of Q's coordinates"),
    "exact/nll_oracle": Metric("nats/token", None, "-E_Q log P: low for likely samples, however alike they are"),
    "exact/nll_test": Metric("nats/token", "lower", "-E_P log Q"),
    "exact/entropy_sampled": Metric("nats/token", None, "-E_Q log Q"),
    "exact/entropy_world": Metric("nats/token", None, "-E_P log P: what nll_oracle is for Q = P", level=True),
    "exact/forward_kl_sampled": Metric("nats/token", "lower", "nll_test - entropy_world"),
    "exact/reverse_kl_sampled": Metric("nats/token", "lower", "nll_oracle - entropy_sampled"),
    "exact/<name>_se": Metric("as the number", None, "its standard error"),
}
PRIORS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)  # where normalised JS is measured, besides its ends
FEW = 40  # probabilities of single tokens that are still listed one by one
LOGITS = 2**24  # made at a time when sequences are scored: 64 MB


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """Named `exact/…` (see METRICS), nats; P is the world, Q the model.

    Worlds that can be enumerated, and points of up to two dimensions on a fine grid, are integrated over: the
    divergences along the dial, what only tables of sequences have, or moments of points, and the distance from where
    the objective ends by theory (Objective.optimum). In all worlds data.world.held_out samples of each law give means
    by token (by example for points), each with its standard error (`_se`).
    """
    world, model = worlds.of(config, "evaluator 'exact'"), objective.model
    assert not isinstance(model, Sampler)
    all_examples, length = support(world), world.length if isinstance(world, worlds.SequenceWorld) else 0
    optimum = objective.optimum(world) if all_examples else None
    count = config.data.world.held_out
    log_prob = sharding.compile_on(mesh, model.log_prob)
    draw, rows = make_draw(model, mesh, length), sample_rows(mesh, count)

    def score(params, examples) -> np.ndarray:
        """log Q of each example, nats, with no more logits at a time than fit."""
        chunk = max(LOGITS // (data.spec.length * max(data.spec.vocab, 1)), 1)
        parts = np.array_split(examples, -(-len(examples) // chunk))
        return np.concatenate([np.asarray(log_prob(params, part), np.float64) for part in parts])

    def evaluate(params, key):
        generator = params["generator"]
        values: dict[str, Any] = {}
        if all_examples is not None:
            log_q = score(generator, all_examples.examples) + all_examples.log_volume
            values |= of_support(world, all_examples, log_q)
            if optimum is not None:
                values |= from_optimum(optimum, all_examples, log_q)
        real = read_examples(data.split(config.evaluate.split))
        samples = draw(generator, key, rows)
        fake = np.asarray(samples.tokens if length else samples)[:count]
        values |= of_samples(world, real, fake, score(generator, real), score(generator, fake))
        return {f"exact/{name}": float(value) for name, value in values.items()}

    return evaluate


def read_examples(split: Split) -> np.ndarray:
    """All of a split: tokens (n, length) or points (n, d)."""
    parts = []
    for number in range(split.batches):
        batch = split.batch(number)
        rows = batch["mask"].reshape(len(batch["mask"]), -1)[:, 0]
        parts.append((batch["tokens"] if "tokens" in batch else batch["points"])[rows])
    return np.concatenate(parts)


def of_samples(
    world: worlds.World, real: np.ndarray, fake: np.ndarray, real_log_q: np.ndarray, fake_log_q: np.ndarray
) -> dict[str, Any]:
    """Means over examples (n, …) of both laws with their standard errors, nats a token, or an example for points."""
    tokens = world.length if isinstance(world, worlds.SequenceWorld) else 1
    values = {
        "nll_oracle": -world.log_prob(fake) / tokens,
        "nll_test": -real_log_q / tokens,
        "entropy_sampled": -fake_log_q / tokens,
        "entropy_world": -world.log_prob(real) / tokens,
    }
    values["forward_kl_sampled"] = values["nll_test"] - values["entropy_world"]
    values["reverse_kl_sampled"] = values["nll_oracle"] - values["entropy_sampled"]
    means = {name: np.mean(value) for name, value in values.items()}
    return means | {f"{name}_se": np.std(value) / np.sqrt(len(value)) for name, value in values.items()}


def of_support(world: worlds.World, all_examples: Support, log_q: np.ndarray) -> dict[str, Any]:
    """All that integrals over the support give; log_q: of each cell's mass."""
    values = along_dial(all_examples, log_q)
    if isinstance(world, worlds.SequenceWorld):
        return values | of_sequences((world.vocab,) * world.length, all_examples, log_q)
    return values | of_points(all_examples, log_q)


def from_optimum(optimum: Optimum, all_examples: Support, log_q: np.ndarray) -> dict[str, Any]:
    """How far Q is from where theory says that it ends: in its probabilities, and in JS_pi / (pi (1 - pi))."""
    log_p, log_q = log_masses(all_examples, log_q)
    best = optimum.table.ravel()
    values = {f"{optimum.name}_error": np.abs(best - np.exp(log_q)).max()}
    if (pi := optimum.excess_prior) is not None:
        least = divergences.normalised_js_from_logits(log_p, np.log(best), pi)
        values["excess_njs"] = divergences.normalised_js_from_logits(log_p, log_q, pi) - least
    return values


def log_masses(all_examples: Support, log_q: np.ndarray) -> list[np.ndarray]:
    """log P and log Q over the support, as logarithms of masses that add up to 1."""
    return [log_mass - np.logaddexp.reduce(log_mass) for log_mass in (all_examples.log_p, log_q)]


def along_dial(all_examples: Support, log_q: np.ndarray) -> dict[str, Any]:
    """Divergences along the dial, and Q's entropy."""
    # From logarithms: far out on a grid both masses underflow, and their ratio does not.
    log_p, log_q = log_masses(all_examples, log_q)
    values = {
        "forward_kl": divergences.kl_from_log(log_p, log_q),
        "reverse_kl": divergences.kl_from_log(log_q, log_p),
    }
    for prior in PRIORS:
        normalised = divergences.normalised_js_from_logits(log_p, log_q, prior)
        values |= {f"njs@{prior:g}": normalised, f"js@{prior:g}": prior * (1 - prior) * normalised}
    return values | {"entropy": divergences.entropy(np.exp(log_q)) + all_examples.log_volume}


def of_sequences(shape: tuple[int, ...], all_examples: Support, log_q: np.ndarray) -> dict[str, Any]:
    """What only tables of sequences have; shape: (vocab,)*length."""
    p, q = (np.exp(log_mass).reshape(shape) for log_mass in log_masses(all_examples, log_q))
    marginals = divergences.position_marginals(q)
    error = marginals - divergences.position_marginals(p)
    on_model, on_data = (divergences.token_kl(p, q, prefixes=prefixes).sum() for prefixes in ("model", "data"))
    return {
        "total_correlation": divergences.total_correlation(q),
        "max_marginal_error": np.abs(error).max(),
        "max_error": np.abs(p - q).max(),
        "exposure_gap": on_model - on_data,
        **{f"marginal_{t}_{v}": value for (t, v), value in np.ndenumerate(marginals) if marginals.size <= FEW},
    }


def of_points(all_examples: Support, log_q: np.ndarray) -> dict[str, Any]:
    """Q's first two moments."""
    q, points = np.exp(log_masses(all_examples, log_q)[1]), all_examples.examples
    mean = q @ points
    variance = q @ np.square(points - mean[None, :]).mean(axis=-1)
    return {f"mean_{axis}": value for axis, value in enumerate(mean)} | {"sd": np.sqrt(variance)}
