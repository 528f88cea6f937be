"""What changes as a run goes on: functions of the step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

Schedule = Callable[[Any], jax.Array]  # step -> value


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """step -> learning rate: a linear warm-up to the peak, then the named decay over the steps that are left.

    config: config.optimizer. With w warm-up steps (1 for none) 'rsqrt' is peak sqrt(w / (i + w)), i steps after them.
    """
    peak, warmup, end = config.learning_rate, config.warmup_steps, config.learning_rate * config.final_fraction
    left = max(steps - warmup, 1)

    def rsqrt(step):
        return peak * jnp.sqrt(max(warmup, 1) / (jnp.maximum(step, 0) + max(warmup, 1)))

    decay = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, end, left),
        "cosine": optax.cosine_decay_schedule(peak, left, config.final_fraction),
        "rsqrt": rsqrt,
    }[config.schedule]
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def keep_true(options: Any) -> Schedule:
    """step i -> the probability of feeding the true token, which never falls below options.keep_true.

    With k = keep_k and c = keep_slope: 'constant' keep_true; 'linear' k - c i; 'exponential' k^i; 'inverse_sigmoid'
    k / (k + exp(i / k)), half way at i = k log k. options: those of scheduled sampling. Bengio et al. (2015), 2.4.
    """
    k, least = options.keep_k, options.keep_true

    def probability(step):
        i = jnp.asarray(step, jnp.float32)
        if options.keep_schedule == "linear":
            falling = k - options.keep_slope * i
        elif options.keep_schedule == "exponential":
            falling = k**i
        elif options.keep_schedule == "inverse_sigmoid":
            falling = jax.nn.sigmoid(jnp.log(k) - i / k)
        else:
            falling = least
        return jnp.maximum(least, falling)

    return probability


def between(first: float, last: float, steps: int) -> Schedule:
    """step -> a straight line from first to last over the run."""

    def value(step):
        return first + (last - first) * jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)

    return value
