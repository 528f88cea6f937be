"""What changes as a run goes on: functions of the step, made from the config."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """step -> learning rate: a linear warm-up to the peak, then the named decay over the steps that are left.

    config: config.optimizer.
    """
    peak, warmup, end = config.learning_rate, config.warmup_steps, config.learning_rate * config.final_fraction
    left = max(steps - warmup, 1)
    decay = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, end, left),
        "cosine": optax.cosine_decay_schedule(peak, left, config.final_fraction),
        "rsqrt": lambda step: peak * jnp.sqrt(max(warmup, 1) / (jnp.maximum(step, 0) + max(warmup, 1))),
    }[config.schedule]
    return (
        optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), decay], [warmup]) if warmup else decay
    )


def keep_true(config: ConfigDict) -> Callable[[Any], jax.Array]:
    """step i -> the probability of feeding the true token, which never falls below config.keep_true.

    With k = keep_k and c = keep_slope: 'constant' keep_true; 'linear' k - c i; 'exponential' k^i; 'inverse_sigmoid'
    k / (k + exp(i / k)), half way at i = k log k. config: config.objective. Bengio et al. (2015), section 2.4.
    """
    k, least = config.keep_k, config.keep_true
    falling = {
        "constant": lambda step: least,
        "linear": lambda step: k - config.keep_slope * step,
        "exponential": lambda step: k**step,
        "inverse_sigmoid": lambda step: jax.nn.sigmoid(jnp.log(k) - step / k),
    }[config.keep_schedule]
    return lambda step: jnp.maximum(least, falling(jnp.asarray(step, jnp.float32)))


def between(first: float, last: float, steps: int) -> Callable[[Any], jax.Array]:
    """step -> a straight line from first to last over the run."""
    return lambda step: first + (last - first) * jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
