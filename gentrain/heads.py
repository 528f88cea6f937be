"""Losses of a softmax over a large vocabulary, from what its last layer reads: logits are made by the piece, never all.

A piece is all positions of a device by some columns of its vocabulary. It is made anew wherever it is needed, so a loss
costs the matmuls of two or three passes, and the memory of one piece.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gentrain.divergences.arrays import (
    Prior,
    kl_factor,
    log_over_mixture,
    mixture_kl_terms,
    split_prior,
    subtract_logs,
)
from gentrain.sharding import Axes, by_columns

PIECE = 2**21  # numbers: few enough to stay near the processor, enough columns to fill its matmuls
NARROWEST = 128  # columns, of however many rows


class Head(NamedTuple):
    """The last layer of a model, logits = hidden @ kernel + bias; no bias is None."""

    kernel: Float[Array, "width vocab"]
    bias: Float[Array, "vocab"] | None = None


class Columns(NamedTuple):
    """Those of a piece: `size` of them, from `first` on."""

    first: Any  # int, or a number that is traced
    size: int

    def of(self, x: Array) -> Array:
        """These columns of an array (…, vocab)."""
        return jax.lax.dynamic_slice_in_dim(x, self.first, self.size, axis=-1)

    def put(self, x: Array, piece: Array) -> Array:
        """The array with a piece (…, size) in place of these columns."""
        return jax.lax.dynamic_update_slice_in_dim(x, piece, self.first, axis=-1)


def head_divergence(
    teacher_hidden: Float[Array, "batch length teacher_width"],
    teacher_head: Head,
    student_hidden: Float[Array, "batch length width"],
    student_head: Head,
    real_prior: Prior,
) -> Float[Array, "batch length"]:
    """The normalised divergence of two heads is JS_pi[P||Q] / (pi (1 - pi)) at each position, in nats.

    P = softmax(teacher_hidden @ kernel + bias) and Q, the student's, are over one vocabulary. pi = real_prior, which
    broadcasts to (batch, length), is the weight on P: the value is KL[P||Q] at 0 and KL[Q||P] at 1. It is that of
    divergences.normalised_js_from_logits, in float32 from operands of any dtype, without logits (batch, length, vocab)
    of either. Gradients are the student's alone; the teacher and the prior have none. A temperature divides logits:
    divide what is hidden, and the bias, by it. On a mesh each device makes the logits of its own rows and positions,
    and of its own columns of the kernels, as mesh.tensor splits them.
    A ValueError is raised if the vocabularies differ, or if a concrete pi is not in [0, 1].
    """
    vocabularies = teacher_head.kernel.shape[-1], student_head.kernel.shape[-1]
    if len(set(vocabularies)) > 1:
        raise ValueError(f"the vocabularies differ: the teacher has {vocabularies[0]}, the student {vocabularies[1]}")
    places = student_hidden.shape[:2]
    pi, one_minus_pi = split_prior(real_prior, jnp.zeros((), jnp.float32), jnp)
    priors = tuple(jnp.broadcast_to(weight, places)[:, :, None] for weight in (pi, one_minus_pi))
    return divergence((teacher_hidden, student_hidden), (teacher_head, student_head), priors)


Pair = tuple[Any, Any]  # the teacher's and the student's


@jax.custom_vjp
def divergence(hidden: Pair, heads: Pair, priors: Pair) -> Float[Array, "batch length"]:
    """head_divergence, of (teacher, student) and (pi, 1 - pi)."""
    return divergence_forward(hidden, heads, priors)[0]


def divergence_forward(hidden: Pair, heads: Pair, priors: Pair) -> tuple[Array, Any]:
    """sum (P - Q) (g(log P/M) - g(log Q/M)), in two passes: see divergences.arrays."""

    def of_device(rows, heads, axes):
        hidden, priors = rows
        log_z = tuple(log_normaliser(*layer, axes) for layer in zip(hidden, heads, strict=True))

        def add(sums, columns):
            log_p, log_q, log_ratio = log_laws(hidden, heads, log_z, columns)
            terms = mixture_kl_terms(jnp.exp(log_p) - jnp.exp(log_q), log_ratio, *priors, jnp)
            return tuple(total + jnp.sum(term, axis=-1, keepdims=True) for total, term in zip(sums, terms, strict=True))

        of_p, of_q = jax.lax.psum(over_columns(add, (jnp.zeros_like(log_z[0]),) * 2, rows, heads), axes.columns)
        return (of_p + of_q, of_q, log_z), ()

    (value, of_q, log_z), _ = by_columns(of_device, (hidden, priors), heads)
    return value[:, :, 0], (hidden, heads, priors, of_q, log_z)


def divergence_backward(residuals: Any, cotangent: Array) -> Any:
    """The gradient in the student's logit v is -(P - Q)(v) (1 + g(log Q/M (v))) - Q(v) KL[Q||M] / pi.

    The derivative in Q(v), as a free variable, is log(Q/M) / pi, and Q log(Q/M) / pi = -(P - Q) (1 + g(log Q/M)).
    """
    hidden, heads, priors, of_q, log_z = residuals

    def of_device(rows, heads, axes):
        hidden, (pi, one_minus_pi), of_q, log_z, cotangent = rows

        def of_logits(columns):
            log_p, log_q, log_ratio = log_laws(hidden, heads, log_z, columns)
            p, q = jnp.exp(log_p), jnp.exp(log_q)
            factor = kl_factor(log_over_mixture(one_minus_pi, pi, -log_ratio, jnp), jnp)
            return cotangent * ((q - p) * (1 + factor) - q * of_q)

        return pull(of_logits, hidden[1], heads[1], axes)

    rows = (hidden, priors, of_q, log_z, cotangent[:, :, None])
    of_hidden, of_head = by_columns(of_device, rows, heads, heads[1])
    return (None, of_hidden), (None, of_head), None


divergence.defvjp(divergence_forward, divergence_backward)


def over_columns(step: Callable[[Any, Columns], Any], carry: Any, rows: Any, columns: Any) -> Any:
    """The carry after step(carry, Columns) of each piece, of the rows that there are."""
    vocab = jax.tree.leaves(columns)[0].shape[-1]
    size = min(vocab, max(PIECE // len(jax.tree.leaves(rows)[0]), NARROWEST))
    count, rest = divmod(vocab, size)
    carry = jax.lax.fori_loop(0, count, lambda number, carry: step(carry, Columns(number * size, size)), carry)
    return step(carry, Columns(count * size, rest)) if rest else carry


def make_logits(hidden: Float[Array, "rows width"], head: Head, columns: Columns) -> Float[Array, "rows size"]:
    """A piece of logits, in float32."""
    logits = jnp.matmul(hidden, columns.of(head.kernel).astype(hidden.dtype), preferred_element_type=jnp.float32)
    return logits if head.bias is None else logits + columns.of(head.bias).astype(jnp.float32)[None, :]


def log_normaliser(hidden: Float[Array, "rows width"], head: Head, axes: Axes) -> Float[Array, "rows 1"]:
    """log sum_v exp(logits[v]), over the columns of all devices."""

    def add(sums, columns):
        largest, total = sums
        logits = make_logits(hidden, head, columns)
        now = jnp.maximum(largest, jnp.max(logits, axis=-1, keepdims=True))
        return now, total * jnp.exp(largest - now) + jnp.sum(jnp.exp(logits - now), axis=-1, keepdims=True)

    zeros = jnp.zeros((len(hidden), 1), jnp.float32)
    least = zeros + jnp.finfo(jnp.float32).min
    largest, total = over_columns(add, (least, zeros), hidden, head)
    most = jax.lax.pmax(largest, axes.columns)
    return most + jnp.log(jax.lax.psum(total * jnp.exp(largest - most), axes.columns))


def log_laws(hidden: Pair, heads: Pair, log_z: Pair, columns: Columns) -> tuple[Array, Array, Array]:
    """log P, log Q and log P/Q in a piece; the last is 0 where neither has mass."""
    log_p, log_q = (
        make_logits(x, head, columns) - of_row for x, head, of_row in zip(hidden, heads, log_z, strict=True)
    )
    return log_p, log_q, subtract_logs(log_p, log_q, jnp)


def pull(
    of_logits: Callable[[Columns], Array], hidden: Float[Array, "rows width"], head: Head, axes: Axes
) -> tuple[Float[Array, "rows width"], Head]:
    """The gradients in what is hidden and in the head, from those in the logits of each piece; sums are in float32."""

    def add(sums, columns):
        of_hidden, of_head = sums
        gradient = of_logits(columns)
        factor = gradient.astype(hidden.dtype)
        kernel = columns.of(head.kernel).astype(hidden.dtype)
        of_hidden += jnp.matmul(factor, kernel.T, preferred_element_type=jnp.float32)
        of_kernel = jnp.matmul(hidden.T, factor, preferred_element_type=jnp.float32)
        pieces = Head(of_kernel, None if head.bias is None else jnp.sum(gradient, axis=0))
        return of_hidden, jax.tree.map(columns.put, of_head, pieces)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (hidden, head))
    of_hidden, of_head = over_columns(add, zeros, hidden, head)
    of_hidden, of_head = jax.lax.psum(of_hidden, axes.columns), jax.lax.psum(of_head, axes.rows)
    return jax.tree.map(lambda gradient, x: gradient.astype(x.dtype), (of_hidden, of_head), (hidden, head))
