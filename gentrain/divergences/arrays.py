"""Helpers that the rest of the package shares: arrays of either namespace, checks, and the terms of KL to a mixture.

`xp` is the namespace of the arrays: numpy or jax.numpy. `pi` is the weight on P in M = pi P + (1 - pi) Q.

One identity carries the package. It uses log-ratios to the mixture, and it divides by no probability and no prior:

    KL[P||M] / (1 - pi) = sum (P - Q) g(log P/M),    g(l) = l / (1 - exp(-l)) - 1,

and likewise KL[Q||M] / pi = sum (Q - P) g(log Q/M). Hence

    JS_pi / (pi (1 - pi)) = sum (P - Q) [g(log P/M) - g(log Q/M)].

The sum is continuous in pi: it is KL[P||Q] at 0 and KL[Q||P] at 1. It is exact to rounding near both ends and near
P = Q, where differences of logarithms cancel.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

AnyArray: TypeAlias = Any  # a jax.Array or a numpy array (or scalar): what goes in comes out
Law: TypeAlias = Float[AnyArray, "*#batch support"]
Table: TypeAlias = Float[AnyArray, "*sites"]
Values: TypeAlias = Float[AnyArray, "..."]
Prior: TypeAlias = Float[AnyArray, "..."] | float


# Arrays of either namespace.


def convert_arrays(*values: Any) -> tuple[Any, ...]:
    """Return the namespace, then the values in its floats: numpy's float64, or JAX's float32 or wider."""
    if any(isinstance(value, jax.Array) for value in values):
        dtype = jnp.promote_types(jnp.result_type(*values), jnp.float32)
        return jnp, *(jnp.asarray(value, dtype) for value in values)
    return np, *(np.asarray(value, np.float64) for value in values)


def split_prior(real_prior: Any, like: Any, xp: Any) -> tuple[Any, Any]:
    """Return (pi, 1 - pi) in the dtype of `like`. A ValueError is raised for a concrete pi outside [0, 1].

    A plain number is subtracted from 1 in float64, so that 1 - pi keeps its digits where pi is near 1.
    """
    traced = isinstance(real_prior, jax.core.Tracer)
    if not traced and not np.all((np.asarray(real_prior) >= 0) & (np.asarray(real_prior) <= 1)):
        raise ValueError(f"real_prior must lie in [0, 1], not {real_prior}")
    pi = real_prior if isinstance(real_prior, jax.Array) else np.asarray(real_prior, np.float64)
    return xp.asarray(pi, like.dtype), xp.asarray(1 - pi, like.dtype)


# Checks. A traced array has a shape to check and no values.


def check_distributions(**distributions: Any) -> None:
    """Raise a ValueError unless the distributions share a support and each is normalised over its last axis."""
    check_supports(**{name: np.shape(distribution)[-1:] for name, distribution in distributions.items()})
    for name, distribution in distributions.items():
        check_normalised(name, distribution, axis=-1)


def check_joints(**tables: Any) -> None:
    """Raise a ValueError unless the tables share a shape and each is normalised over all its axes."""
    check_supports(**{name: np.shape(table) for name, table in tables.items()})
    for name, table in tables.items():
        check_normalised(name, table, axis=None)


def check_supports(**shapes: tuple[int, ...]) -> None:
    """Raise a ValueError unless all the shapes are the same."""
    if len(set(shapes.values())) > 1:
        raise ValueError("supports differ: " + ", ".join(f"{name} has {shape}" for name, shape in shapes.items()))


def check_normalised(name: str, probabilities: Any, axis: int | None) -> None:
    """Raise a ValueError unless the probabilities are non-negative and sum to 1 over the axis, up to rounding."""
    if isinstance(probabilities, jax.core.Tracer):
        return
    values = np.asarray(probabilities)
    if np.any(values < 0):
        raise ValueError(f"{name} has negative entries, down to {values.min():.3g}")
    tolerance = 1e-6 if values.dtype == np.float64 else 1e-4
    total = values.sum(axis=axis, dtype=np.float64)
    error = np.abs(total - 1)
    if not np.all(error <= tolerance):
        raise ValueError(f"{name} is not normalised: it sums to {np.ravel(total)[np.argmax(error)]:.8g}")


# Logarithms and products at zero.


def log_with_zeros(values: Any, xp: Any) -> Any:
    """Return the logarithm: it is -inf at 0, with no warning and no NaN in the gradient."""
    positive = values > 0
    return xp.where(positive, xp.log(xp.where(positive, values, 1)), -xp.inf)


def subtract_logs(log_p: Any, log_q: Any, xp: Any) -> Any:
    """Return log P/Q: it is 0 where P and Q are both 0, so that such a cell adds nothing."""
    empty = xp.isneginf(log_p) & xp.isneginf(log_q)
    return xp.where(empty, 0, log_p) - xp.where(empty, 0, log_q)


def take_log_ratio(p: Any, q: Any, xp: Any) -> Any:
    """Return log P/Q from probabilities: it is infinite where one of them is 0, and 0 where both are."""
    return subtract_logs(log_with_zeros(p, xp), log_with_zeros(q, xp), xp)


def multiply_by_weight(weight: Any, values: Any, xp: Any) -> Any:
    """Return weight * values: it is 0 where the weight is 0, even if the value is infinite."""
    return xp.where(weight > 0, weight * xp.where(weight > 0, values, 0), 0)


# The terms of the identity above.


def log_over_mixture(a_weight: Any, b_weight: Any, log_ratio: Any, xp: Any) -> Any:
    """Return log A/M from log_ratio = log A/B, for M = a_weight A + b_weight B. It never exceeds -log a_weight."""
    positive = b_weight > 0
    log_b_share = xp.where(positive, xp.log(xp.where(positive, b_weight, 1)) - log_ratio, -xp.inf)  # log b_weight B/A
    return -xp.logaddexp(log_with_zeros(a_weight, xp), log_b_share)


def kl_factor(log_ratio: Any, xp: Any) -> Any:
    """Return g(l) = l / (1 - exp(-l)) - 1: it increases, is -1 at -inf, l/2 near 0 and l - 1 far above.

    KL[P||Q] = sum (P - Q) g(log P/Q), and no term of this sum is negative.
    """
    small = xp.abs(log_ratio) < 1e-2
    near = xp.where(small, log_ratio, 0)
    far = xp.where(small, 1, xp.maximum(log_ratio, -80))  # exp(80) is still a float32, and g(-80) is -1 to rounding
    return xp.where(small, near / 2 + near**2 / 12 - near**4 / 720, far / -xp.expm1(-far) - 1)


def mixture_kl_terms(difference: Any, log_ratio: Any, pi: Any, one_minus_pi: Any, xp: Any) -> tuple[Any, Any]:
    """Return the terms of KL[P||M] / (1 - pi) and of KL[Q||M] / pi, from P - Q and log P/Q. None is negative."""
    p_terms = difference * kl_factor(log_over_mixture(pi, one_minus_pi, log_ratio, xp), xp)
    q_terms = -difference * kl_factor(log_over_mixture(one_minus_pi, pi, -log_ratio, xp), xp)
    return p_terms, q_terms
