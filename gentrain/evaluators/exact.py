"""How far a model is from a world that is known exactly: by enumeration where that can be done, else with standard
errors."""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gentrain import decode, divergences, models, schedules, sharding, worlds
from gentrain.data import Data, Split
from gentrain.errors import ConfigError
from gentrain.worlds.support import Support, support

PRIORS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)  # where normalised JS is told, besides its ends
FEW = 40  # probabilities of single tokens that are still told one by one
LOGITS = 2**24  # made at a time when sequences are scored: 64 MB


def build(config: ConfigDict, model, data: Data, mesh):
    """Named `exact/…`, nats; P is the world, Q the model.

    Worlds that can be enumerated, and points of up to two dimensions on a fine grid: forward_kl = KL[P||Q],
    reverse_kl = KL[Q||P], js@pi = JS_pi and njs@pi = JS_pi / (pi (1 - pi)), entropy of Q; of sequences also
    total_correlation of Q, marginal_t_v = Q(x_t = v) where they are few, max_marginal_error, max_error = max |Q(x) -
    P(x)| and exposure_gap, the token KL on Q's prefixes less that on P's; after scheduled sampling fixed_point_error =
    max |Q(x) - Q*(x)|, Q* being where theory says that it ends, and of independent positions on the dial
    minimiser_error = max |Q(x) - Q*(x)| and excess_njs, Q* being the nearest of their kind; of points mean_i and sd,
    the root of a coordinate's mean variance. All worlds, from world.held_out samples of each: nll_oracle = -E_Q log P,
    nll_test = -E_P log Q, entropy_sampled = -E_Q log Q and entropy_world = -E_P log P, which is what nll_oracle is for
    Q = P (less is not better: it is lower entropy), forward_kl_sampled = nll_test - entropy_world and
    reverse_kl_sampled = nll_oracle - entropy_sampled, by token (by example for points), each with its standard error
    (_se).
    """
    world = worlds.of(config, "evaluator 'exact'")
    everywhere, length = support(world), world.length if isinstance(world, worlds.SequenceWorld) else 0
    log_prob = jax.jit(partial(models.log_prob, model))
    fixed = scheduled_sampling(config, world) if everywhere else None
    best = minimiser(config, world) if everywhere else None

    def scores(params, examples) -> np.ndarray:
        chunk = max(LOGITS // (data.spec.length * max(data.spec.vocab, 1)), 1)
        parts = np.array_split(examples, -(-len(examples) // chunk))
        return np.concatenate([np.asarray(log_prob(params, jnp.asarray(part)), np.float64) for part in parts])

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def draw(params, key):
        rows = sharding.spread(jnp.arange(sharding.whole(mesh, config.world.held_out)), mesh)
        keys = models.example_keys(key, rows)
        if isinstance(model, models.DensityModel):
            return model.sample(params, keys)
        return decode.sample(model, params, keys, length).tokens

    def sampled(params, key) -> dict[str, float]:
        real = examples(data.split(config.evaluate.split))
        fake = np.asarray(draw(params, key))[: config.world.held_out]
        steps = length or 1
        values = {
            "nll_oracle": -world.log_prob(fake) / steps,
            "nll_test": -scores(params, real) / steps,
            "entropy_sampled": -scores(params, fake) / steps,
            "entropy_world": -world.log_prob(real) / steps,
        }
        values["forward_kl_sampled"] = values["nll_test"] - values["entropy_world"]
        values["reverse_kl_sampled"] = values["nll_oracle"] - values["entropy_sampled"]
        means = {name: float(np.mean(value)) for name, value in values.items()}
        return means | {f"{name}_se": float(np.std(v) / np.sqrt(len(v))) for name, v in values.items()}

    def enumerated(params, everywhere: Support) -> dict[str, float]:
        log_q = scores(params, everywhere.examples) + everywhere.log_volume
        if isinstance(world, worlds.SequenceWorld):
            more = of_sequences((world.vocab,) * world.length, everywhere, log_q)
            if fixed is not None:
                more["fixed_point_error"] = np.abs(fixed.ravel() - np.exp(laws(everywhere, log_q)[1])).max()
            if best is not None:
                more |= beyond(best, config.objective.real_prior, everywhere, log_q)
        else:
            more = of_points(everywhere, log_q)
        return {name: float(value) for name, value in {**known(everywhere, log_q), **more}.items()}

    def evaluate(params, key):
        own = params["generator"]
        found = (enumerated(own, everywhere) if everywhere else {}) | sampled(own, key)
        return {f"exact/{name}": value for name, value in found.items()}

    return evaluate


def examples(split: Split) -> np.ndarray:
    """All of a split: tokens (n, length) or points (n, d)."""
    batches = map(split.batch, range(split.batches))
    pairs = [(batch["tokens"] if "tokens" in batch else batch["points"], batch["mask"]) for batch in batches]
    return np.concatenate([values[mask.reshape(len(mask), -1)[:, 0]] for values, mask in pairs])


def scheduled_sampling(config: ConfigDict, world: worlds.World) -> np.ndarray | None:
    """Where the run ends by theory; None for other objectives, where none is known in closed form, and in worlds of
    too many prefixes for its recursion."""
    options, coin = config.objective, "parallel" if config.objective.mode == "passes:1" else config.objective.coin
    known = options.mode in ("sequential", "exact") or (options.mode, options.coin) == ("passes:1", "token")
    if options.name != "scheduled_sampling" or options.feed != "sample" or not known:
        return None
    assert isinstance(world, worlds.SequenceWorld)
    last = float(schedules.keep_true(options)(config.steps))
    try:
        return worlds.scheduled_sampling_fixed_point(world, last, coin, options.label)
    except ConfigError:
        return None


def minimiser(config: ConfigDict, world: worlds.World) -> np.ndarray | None:
    """The table of independent positions that is nearest in JS_pi; None for other objectives and families."""
    options = config.objective
    dial = options.name == "divergence" or (options.name == "adversarial" and options.generator_loss == "js")
    if not dial or config.model.name != "factorised":
        return None
    assert isinstance(world, worlds.SequenceWorld)
    marginals = worlds.js_minimiser(world, "factorised", options.real_prior)[0].parameters
    return reduce(np.multiply.outer, marginals)


def beyond(best: np.ndarray, real_prior: float, everywhere: Support, log_q: np.ndarray) -> dict[str, Any]:
    """How far Q is from the minimiser of JS_pi in its family: in its probabilities, and in JS_pi / (pi (1 - pi))."""
    log_p, log_q = laws(everywhere, log_q)
    least = divergences.normalised_js_from_logits(log_p, np.log(best.ravel()), real_prior)
    excess = divergences.normalised_js_from_logits(log_p, log_q, real_prior) - least
    return {"minimiser_error": np.abs(best.ravel() - np.exp(log_q)).max(), "excess_njs": excess}


def laws(everywhere: Support, log_q: np.ndarray) -> list[np.ndarray]:
    """log P and log Q over the support, as logarithms of masses that add up to 1."""
    return [law - np.logaddexp.reduce(law) for law in (everywhere.log_p, log_q)]


def known(everywhere: Support, log_q: np.ndarray) -> dict[str, Any]:
    """Divergences along the dial, and Q's entropy."""
    # From logarithms: far out on a grid both masses underflow, and their ratio does not.
    log_p, log_q = laws(everywhere, log_q)
    found = {"forward_kl": divergences.kl_from_log(log_p, log_q), "reverse_kl": divergences.kl_from_log(log_q, log_p)}
    for prior in PRIORS:
        normalised = divergences.normalised_js_from_logits(log_p, log_q, prior)
        found |= {f"njs@{prior:g}": normalised, f"js@{prior:g}": prior * (1 - prior) * normalised}
    return found | {"entropy": divergences.entropy(np.exp(log_q)) + everywhere.log_volume}


def of_sequences(shape: tuple[int, ...], everywhere: Support, log_q: np.ndarray) -> dict[str, Any]:
    """What only tables of strings have."""
    p, q = (np.exp(law).reshape(shape) for law in laws(everywhere, log_q))
    marginals = divergences.position_marginals(q)
    off = marginals - divergences.position_marginals(p)
    on_model, on_data = (divergences.token_kl(p, q, prefixes=prefixes).sum() for prefixes in ("model", "data"))
    return {
        "total_correlation": divergences.total_correlation(q),
        "max_marginal_error": np.abs(off).max(),
        "max_error": np.abs(p - q).max(),
        "exposure_gap": on_model - on_data,
        **{f"marginal_{t}_{v}": value for (t, v), value in np.ndenumerate(marginals) if marginals.size <= FEW},
    }


def of_points(everywhere: Support, log_q: np.ndarray) -> dict[str, Any]:
    """Q's first two moments."""
    q, points = np.exp(laws(everywhere, log_q)[1]), everywhere.examples
    mean = q @ points
    spread = q @ np.square(points - mean[None, :]).mean(axis=-1)
    return {f"mean_{axis}": value for axis, value in enumerate(mean)} | {"sd": np.sqrt(spread)}
