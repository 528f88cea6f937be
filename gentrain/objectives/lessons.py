"""What is written down of a teacher, so that a student may learn from it without asking it again."""

import jax
import jax.numpy as jnp
from jax import Array

from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.models.base import Params, SequenceModel, at_positions, before_logits
from gentrain.objectives.base import Batch
from gentrain.objectives.distillation_options import TOP, Options

HIDDEN = "taught_hidden"  # what the teacher makes logits of
LOG_PROBS, TOKENS = "taught_log_probs", "taught_tokens"  # of its likeliest tokens, the likeliest first
ALONE = tuple(name for name in TOP if name != "top_k_plus_score")  # estimators of these alone


def teach(teacher: SequenceModel, params: Params, batch: Batch, top_k: int) -> dict[str, Array]:
    """The arrays beside a batch: (rows, length, top_k), or for top_k = 0 (rows, length, width). Log-probabilities are
    those of all the vocabulary, in nats at temperature 1, so that the mass of the other tokens is what is left."""
    inputs, context = teacher.inputs(batch["tokens"]), batch.get("context")
    if not top_k:
        return {HIDDEN: before_logits(teacher, params, inputs, context)}

    def likeliest(logits):
        return jax.lax.top_k(jax.nn.log_softmax(logits.astype(jnp.float32)), top_k)

    return dict(
        zip((LOG_PROBS, TOKENS), at_positions(teacher, params, likeliest, inputs, context=context), strict=True)
    )


def players(options: Options, spec: Spec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Who is frozen and who is spared: with the likeliest tokens beside the batch nobody is asked.

    Raises ConfigError for a loss that these do not suffice for.
    """
    stored = {array.name: array.size for array in spec.beside}
    if LOG_PROBS not in stored:
        return ("teacher", *(f"teacher_{number}" for number in range(2, options.teachers + 1))), ()
    found = f"data.taught has the teacher's {stored[LOG_PROBS]} likeliest tokens"
    if options.estimator not in ALONE:
        raise ConfigError(f"distillation.estimator={options.estimator!r}: expected one of {', '.join(ALONE)}: {found}")
    if options.top_k > stored[LOG_PROBS]:
        raise ConfigError(f"distillation.top_k={options.top_k}: expected at most {stored[LOG_PROBS]}: {found}")
    if options.teacher_temperature != 1:
        raise ConfigError(f"distillation.teacher_temperature={options.teacher_temperature:g}: expected 1: {found}")
    return (), ("teacher",)
