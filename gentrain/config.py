"""What a config may say, checked before JAX is imported, so that a mistake costs a second and not a compile."""

import json
import math
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gentrain import plugins
from gentrain.errors import ConfigError

OPTIMIZERS = (
    *(
        "adabelief",
        "adadelta",
        "adafactor",
        "adagrad",
        "adam",
        "adamax",
        "adamaxw",
        "adamw",
        "adan",
        "amsgrad",
        "lamb",
        "lars",
    ),
    *("lion", "nadam", "nadamw", "novograd", "radam", "rmsprop", "sgd", "sm3", "yogi"),
)
CHOICES = {
    "data.layout": ("pad", "pack"),
    "data.tokenizer": ("bytes", "chars", "words", "sentencepiece"),
    "data.unit": ("document", "line"),
    "model.param_dtype": ("float32", "bfloat16"),
    "model.compute_dtype": ("float32", "bfloat16"),
    "model.attention": ("xla", "cudnn"),
    "model.remat": ("none", "dots", "full"),
    "optimizer.name": OPTIMIZERS,
    "optimizer.schedule": ("constant", "linear", "cosine", "rsqrt"),
    "objective.keep_schedule": ("constant", "linear", "exponential", "inverse_sigmoid"),
    "objective.coin": ("token", "sequence"),
    "objective.feed": ("sample", "argmax", "soft_argmax", "gumbel_softmax"),
    "objective.draw": ("inverse_cdf", "gumbel"),
    "objective.label": ("true", "expert"),
    "objective.generator_loss": ("js", "reverse_kl", "forward_kl", "non_saturating", "hinge", "relativistic"),
    "objective.prefixes": ("all", "last"),
    "objective.allocation": ("weights", "counts"),
    "objective.estimator": ("score", "straight_through", "gumbel_softmax"),
    "objective.reward": ("sequence", "dense", "discounted", "rollouts"),
    "objective.baseline": ("leave_one_out", "moving_average", "none"),
    "training.mode": ("jit", "shard_map"),
    "evaluate.split": ("train", "valid", "test"),
}
POSITIVE = (
    *("steps", "data.batch_size", "data.length", "model.width", "model.layers", "model.heads", "model.kv_heads"),
    *(
        "training.microbatches",
        "training.max_skipped",
        "checkpoint.every_steps",
        "checkpoint.keep_last",
        "log.every_steps",
    ),
    *("evaluate.every_steps", "optimizer.learning_rate", "optimizer.eps", "model.rope_base"),
    *("objective.critic_steps", "objective.temperature", "objective.rollouts", "model.latent"),
    *("objective.keep_k", "objective.soft_alpha", "evaluate.examples"),
    *("checkpoint.every_seconds", "sample.count", "evaluate.beam"),
)
FRACTIONS = (
    *(
        "data.valid_fraction",
        "data.test_fraction",
        "model.dropout",
        "critic.dropout",
        "objective.label_smoothing",
        "training.ema_decay",
    ),
    *("optimizer.b1", "optimizer.b2", "optimizer.momentum"),
)
SIGNED = ("model.mean", "critic.mean")
LARGEST = 2**31 - 1  # counters and seeds are 32-bit integers

# What makes a run the run it is: a workdir whose run differs in one of these holds another experiment.
IDENTITY = ("seed", "data", "world", "model", "critic", "objective", "optimizer.name")
EXECUTION = ("remat", "scan_layers", "compute_dtype", "logits_chunk", "attention")  # of a model: how, not what
NOT_IDENTITY = (
    "data.prefetch",
    *(f"{player}.{key}" for player in ("model", "critic") for key in EXECUTION),
)


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{'optimizer.learning_rate': 1e-3, …}: every key by its full name."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= (
            {f"{name}.{k}": v for k, v in flatten(value).items()} if isinstance(value, ConfigDict) else {name: value}
        )
    return flat


def section(flat: dict[str, Any], name: str) -> ConfigDict:
    """One section of a config that was written down flat, by attribute again."""
    return ConfigDict(
        {key.removeprefix(f"{name}."): value for key, value in flat.items() if key.startswith(f"{name}.")}
    )


def _check(holds: bool, name: str, value: Any, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}={value!r}: expected {expected}")


def variants(config: ConfigDict) -> dict[str, ConfigDict]:
    """The runs of a sweep by name, which says what sets each apart: 'learning_rate=0.01,seed=1'.

    Raises ConfigError for an unknown key, a value of another type, and for two variants of one name.
    """
    found = {}
    for overrides in config.sweep:
        variant = config.copy_and_resolve_references()
        variant.sweep = ()
        variant.lock()
        try:
            variant.update_from_flattened_dict(dict(overrides))
        except (KeyError, TypeError, ValueError) as error:
            text = " ".join(str(error.args[0]).split())
            raise ConfigError(f"sweep: {dict(overrides)!r} does not fit the config: {text}") from None
        name = ",".join(f"{key.rsplit('.')[-1]}={_short(value)}" for key, value in overrides.items())
        if name in found:
            raise ConfigError(f"sweep: two variants are named {name!r}; let them differ in a key, such as seed")
        validate(variant)
        found[name] = variant
    return found


def _short(value: Any) -> str:
    return re.sub(r"[^\w.+-]+", "_", f"{value:g}" if isinstance(value, float) else str(value)).strip("_")


def validate(config: ConfigDict) -> None:
    """Raises ConfigError for the first value that cannot be, naming the key, what it is and what it may be."""
    flat = flatten(config)
    for name, value in flat.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        _check(math.isfinite(value), name, value, "a finite number")
        _check(isinstance(value, float) or abs(value) <= LARGEST, name, value, f"at most {LARGEST} in size")
        if name in POSITIVE:
            _check(value > 0, name, value, "a number above 0")
        elif not name.startswith("mesh.") and name not in SIGNED:
            _check(value >= 0, name, value, "0 or more")
        if name in FRACTIONS:
            _check(value < 1, name, value, "at least 0 and below 1")
    for name, allowed in CHOICES.items():
        _check(flat[name] in allowed, name, flat[name], "one of " + ", ".join(allowed))
    for room, chosen in (("models", config.model.name), ("objectives", config.objective.name)):
        _check(chosen in plugins.names(room), f"{room[:-1]}.name", chosen, "one of " + ", ".join(plugins.names(room)))
    for chosen in config.evaluate.evaluators:
        _check(
            chosen in plugins.names("evaluators"),
            "evaluate.evaluators",
            chosen,
            "one of " + ", ".join(plugins.names("evaluators")),
        )
    _validate_together(config)
    variants(config)


def _validate_together(config: ConfigDict) -> None:
    """What values must be to one another."""
    batch, microbatches, model = config.data.batch_size, config.training.microbatches, config.model
    _check(batch % microbatches == 0, "training.microbatches", microbatches, f"a divisor of data.batch_size={batch}")
    shards = math.prod(size for axis in ("replica", "data", "fsdp") if (size := config.mesh[axis]) > 0)
    _check(
        batch % (shards * microbatches) == 0,
        "data.batch_size",
        batch,
        f"a multiple of {shards} devices x {microbatches} microbatches",
    )
    sizes = [config.mesh[axis] for axis in ("replica", "data", "fsdp", "tensor")]
    _check(all(size == -1 or size > 0 for size in sizes), "mesh", sizes, "positive lengths, or -1 for one axis")
    _check(sizes.count(-1) <= 1, "mesh", sizes, "at most one -1")
    if model.name == "transformer":
        size = model.width // model.heads
        _check(
            model.attention == "xla" or (model.compute_dtype == "bfloat16" and size % 8 == 0 and size <= 128),
            "model.attention",
            model.attention,
            f"'xla' with compute_dtype={model.compute_dtype!r} and heads of {size} numbers",
        )
        _check(model.width % model.heads == 0, "model.heads", model.heads, f"a divisor of model.width={model.width}")
        _check(
            model.width // model.heads % 2 == 0,
            "model.heads",
            model.heads,
            "an even model.width / model.heads, for rotary positions",
        )
        _check(
            model.heads % model.kv_heads == 0,
            "model.kv_heads",
            model.kv_heads,
            f"a divisor of model.heads={model.heads}",
        )
    warm = config.sample.temperature
    _check(warm == 0 or warm >= 1e-3, "sample.temperature", warm, "0, which takes the likeliest, or at least 0.001")
    _check(config.objective.real_prior <= 1, "objective.real_prior", config.objective.real_prior, "in [0, 1]")
    _validate_scheduled_sampling(config)
    if config.objective.name in ("adversarial", "cooperative"):
        _validate_adversarial(config)
    _check(0 < config.sample.top_p <= 1, "sample.top_p", config.sample.top_p, "above 0 and at most 1")
    _check(
        config.optimizer.warmup_steps < config.steps,
        "optimizer.warmup_steps",
        config.optimizer.warmup_steps,
        f"fewer than steps={config.steps}",
    )
    held_out = config.data.valid_fraction + config.data.test_fraction
    _check(
        held_out < 1,
        "data.valid_fraction + data.test_fraction",
        held_out,
        "below 1, so that something is left to train on",
    )
    traced = config.log.profile
    _check(
        not traced or (len(traced) == 2 and 0 <= traced[0] < traced[1]),
        "log.profile",
        traced,
        "() or two steps, the first before the last, as (10, 13)",
    )
    _check(
        (config.data.name == "mixture") == bool(config.data.sources),
        "data.sources",
        config.data.sources,
        "sources if and only if data.name='mixture'",
    )


def _validate_scheduled_sampling(config: ConfigDict) -> None:
    """The options of objective 'scheduled_sampling' that exclude one another."""
    options, world = config.objective, config.data.name.startswith("world:")
    soft = options.feed in ("soft_argmax", "gumbel_softmax")
    passes = re.fullmatch(r"passes:([1-9]\d*)", options.mode)
    _check(
        options.mode in ("sequential", "exact") or passes is not None,
        "objective.mode",
        options.mode,
        "'sequential', 'exact' or 'passes:K' with K of 1 or more",
    )
    _check(options.keep_true <= 1, "objective.keep_true", options.keep_true, "in [0, 1]")
    k, schedule = options.keep_k, options.keep_schedule
    if schedule in ("linear", "exponential"):
        _check(k <= 1, "objective.keep_k", k, f"at most 1 with keep_schedule={schedule!r}, or probabilities exceed 1")
    if schedule == "inverse_sigmoid":
        _check(k >= 1, "objective.keep_k", k, "1 or more with keep_schedule='inverse_sigmoid': steps, as 1000")
    _check(
        not soft or options.mode != "exact",
        "objective.mode",
        options.mode,
        f"'sequential' or 'passes:K' with feed={options.feed!r}: mixtures have no fixed point to stop at",
    )
    _check(
        soft or not options.feed_gradient,
        "objective.feed_gradient",
        True,
        "a feed through which it can go: soft_argmax",
    )
    if options.name == "scheduled_sampling":
        neural = config.model.name in ("lstm", "transformer")
        _check(neural or not soft, "model.name", config.model.name, "lstm or transformer: the others read no mixtures")
        expert = options.label == "expert"
        _check(
            world or not expert,
            "objective.label",
            options.label,
            f"'true', since data.name={config.data.name!r} has no expert to ask; worlds have",
        )
        _check(
            not (expert and (soft or options.label_smoothing or options.z_loss)),
            "objective.label",
            options.label,
            "'true' with soft feeding, label_smoothing or z_loss",
        )


def _validate_adversarial(config: ConfigDict) -> None:
    """The options of objectives 'adversarial' and 'cooperative' that exclude one another."""
    options, pi, neural = config.objective, config.objective.real_prior, ("lstm", "transformer")
    ends = "between 0 and 1: at the ends a critic sees one class alone; their limits are generator_loss='forward_kl'"
    _check(0 < pi < 1, "objective.real_prior", pi, f"{ends} and 'reverse_kl'")
    sequences = config.model.name in (*neural, "tabular", "factorised")
    mixtures = options.estimator != "score" and sequences
    readers = config.model.name in neural and config.critic.name in (*neural, "mlp")
    _check(
        not mixtures or readers,
        "objective.estimator",
        options.estimator,
        "'score', or models that read mixtures of tokens: lstm or transformer",
    )
    scored = sequences and options.estimator == "score"
    _check(
        not scored or options.generator_loss not in ("hinge", "relativistic"),
        "objective.generator_loss",
        options.generator_loss,
        "one with a reward of its own for estimator='score': js, reverse_kl, forward_kl or non_saturating",
    )
    _check(
        scored or not options.entropy_weight,
        "objective.entropy_weight",
        options.entropy_weight,
        "0: only estimator='score' of sequences knows the entropy",
    )
    paired = options.generator_loss == "relativistic" and options.allocation == "counts"
    _check(
        not paired, "objective.allocation", "counts", "'weights' with generator_loss='relativistic', which has pairs"
    )
    matrices = config.critic.name not in ("tabular", "factorised", "gaussian")
    _check(matrices or not options.spectral_norm, "objective.spectral_norm", True, "a critic with matrices, as mlp")
    tokens = scored and (options.r1 or options.r2)
    _check(not tokens, "objective.r1, r2", (options.r1, options.r2), "0: tokens of estimator='score' have no slope")


def resolved(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON holds it (tuples become lists)."""
    return json.loads(json.dumps(flatten(config)))


def check_same_run(config: ConfigDict, path: Path) -> list[str]:
    """Compares with the config.json of an earlier start in this workdir; returns the harmless changes, a line each.

    Raises ConfigError where the workdir holds another experiment.
    """
    if not path.exists():
        return []
    old, new = json.loads(path.read_text()), resolved(config)
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    lines = {name: f"{name}: {old.get(name)!r} -> {new.get(name)!r}" for name in changed}
    within = lambda name, keys: any(name == key or name.startswith(key + ".") for key in keys)
    # A key that only one of them has is of another version of this program, which did as it does by default.
    mine = lambda name: within(name, IDENTITY) and not within(name, NOT_IDENTITY) and name in old and name in new
    hard = [lines[name] for name in changed if mine(name)]
    if hard:
        raise ConfigError(
            f"{path.parent} holds a run with another config ({'; '.join(hard)}); choose another --workdir or remove it"
        )
    return list(lines.values())
