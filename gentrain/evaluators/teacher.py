"""How far a student is from its teacher, both ways, on sequences that each of them draws."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import decode, divergences, sharding
from gentrain.datasets.build import Data
from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.evaluators.base import Evaluator
from gentrain.models.base import SequenceModel, at_positions, before_logits
from gentrain.models.feeding import example_keys
from gentrain.objectives.base import Objective
from gentrain.sums import Metric

METRICS = {
    "teacher/forward_kl": Metric("nats/sequence", "lower", "KL[P||Q], P the teacher and Q the student"),
    "teacher/forward_kl_se": Metric("nats/sequence", None, "its standard error", restates=True),
    "teacher/reverse_kl": Metric("nats/sequence", "lower", "KL[Q||P]"),
    "teacher/reverse_kl_se": Metric("nats/sequence", None, "its standard error", restates=True),
    "teacher/sample_nll": Metric("nats/token", None, "the teacher's, of the student's samples"),
    "teacher/own_nll": Metric("nats/token", None, "the teacher's, of its own samples: what a perfect student has"),
    "teacher/entropy": Metric("nats/token", None, "the student's, of its own samples"),
    "teacher/excess_error": Metric(
        "share", None, "what own prefixes add to the KL from the teacher, by that on the teacher's (ExAccErr)"
    ),
    "teacher/excess_error@<tokens>": Metric("share", None, "the same of so many tokens after the prompt"),
}


class Scores(NamedTuple):
    """Of sequences that one of the two has drawn, by position: log P and log Q of the tokens, KL[P||Q] of the
    conditionals, and which tokens count."""

    log_p: np.ndarray
    log_q: np.ndarray
    kl: np.ndarray
    mask: np.ndarray


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """The numbers of METRICS from evaluate.examples sequences of each of the two.

    KL[P||Q] is the mean of log P/Q over the teacher's sequences, KL[Q||P] that of log Q/P over the student's. With R(l)
    the mean over the first l positions of KL[P||Q] of conditionals on the student's prefixes and E(l) that on the
    teacher's, excess_error is (R - E) / E of all positions, and excess_error@l of the first l, a quarter or more:
    exposure bias accumulates where it rises (Arora et al. 2022). Raises ConfigError for a prompt that leaves
    nothing, and for a teacher that was asked before.
    """
    spec, student = data.spec, objective.model
    assert isinstance(student, SequenceModel)
    if len(objective.frozen) > 1:
        raise ConfigError(f"evaluator 'teacher' is about one teacher, and there are {len(objective.frozen)}")
    size, prompt, split = config.data.batch_size, config.evaluate.teacher.prompt, data.split(config.evaluate.split)
    if objective.spared:
        raise ConfigError(
            "evaluate.evaluators has 'teacher', of which data.taught has the likeliest tokens: leave it out"
        )
    if prompt >= spec.length:
        raise ConfigError(f"evaluate.teacher.prompt={prompt}: expected less than the {spec.length} tokens of a row")

    score = make_score(student, objective.teacher, spec, prompt)
    compiled = {
        whose: sharding.compile_on(mesh, lambda params, key, batch, whose=whose: score(params, key, batch, whose))
        for whose in ("teacher", "generator")
    }

    def scores_of(whose: str, params, key) -> Scores:
        parts = []
        for number in range(-(-config.evaluate.examples // size)):
            batch = sharding.put(split.batch(number % split.batches), mesh, size)
            parts.append(jax.device_get(compiled[whose](params, jax.random.fold_in(key, number), batch)))
        return Scores(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def evaluate(params, key):
        both = {player: params[player] for player in ("teacher", "generator")}
        values = compare(*(scores_of(whose, both, key) for whose in ("teacher", "generator")))
        return {f"teacher/{name}": float(value) for name, value in values.items()}

    return evaluate


def make_score(student: SequenceModel, teacher: SequenceModel, spec: Spec, prompt: int) -> Callable[..., Scores]:
    """score(params, key, batch, whose): what Scores says of sequences that the player `whose` draws, a row each."""

    def score(params, key, batch, whose):
        model, keys = teacher if whose == "teacher" else student, example_keys(key, batch["row"])
        drawn = decode.sample_after(model, params[whose], keys, batch["tokens"], prompt)
        after_prompt = (jnp.arange(spec.length) >= prompt)[None, :]
        inputs = student.inputs(drawn.tokens)

        def at(logits, teacher_x, tokens):
            log_q = jax.nn.log_softmax(logits)
            log_p = jax.nn.log_softmax(teacher.logits(params["teacher"], teacher_x))
            own = (jnp.take_along_axis(law, tokens[..., None], axis=-1)[..., 0] for law in (log_p, log_q))
            return (*own, divergences.normalised_js_from_logits(log_p, log_q, 0.0))

        teacher_x = before_logits(teacher, params["teacher"], inputs)
        log_p, log_q, kl = at_positions(student, params["generator"], at, inputs, teacher_x, drawn.tokens)
        return Scores(log_p, log_q, kl, drawn.mask & after_prompt & batch["mask"][:, :1])

    return score


def compare(of_teacher: Scores, of_student: Scores) -> dict[str, float]:
    """METRICS from sequences of both."""
    values: dict[str, float] = {}
    for name, scores, sign in (("forward_kl", of_teacher, 1), ("reverse_kl", of_student, -1)):
        ratios = np.asarray(sign * np.sum((scores.log_p - scores.log_q) * scores.mask, axis=1, dtype=np.float64))
        ratios = ratios[scores.mask.any(1)]
        values |= {name: ratios.mean(), f"{name}_se": ratios.std(ddof=1) / np.sqrt(len(ratios))}
    positions = np.flatnonzero(of_teacher.mask.any(0))  # after the prompt
    quarters = {
        f"@{len(positions) * part // 4}": len(positions) * part // 4 for part in (1, 2, 3) if len(positions) > 3
    }
    for name, count in {**quarters, "": len(positions)}.items():
        columns = positions[:count]
        own, taught = (mean(scores.kl[:, columns], scores.mask[:, columns]) for scores in (of_student, of_teacher))
        values[f"excess_error{name}"] = (own - taught) / taught if taught else 0.0
    return values | {
        "sample_nll": mean(-of_student.log_p, of_student.mask),
        "own_nll": mean(-of_teacher.log_p, of_teacher.mask),
        "entropy": mean(-of_student.log_q, of_student.mask),
    }


def mean(values: np.ndarray, mask: np.ndarray) -> float:
    """Over the tokens that count."""
    return float(np.sum(values * mask, dtype=np.float64) / mask.sum())
