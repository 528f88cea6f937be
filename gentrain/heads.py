"""Losses of a softmax over a large vocabulary, from what its last layer reads: logits are made by the piece, never all.

A piece is all rows of a device, a row for each position, by some columns of its vocabulary. It is made anew in every
pass, forward and backward, and kept in none.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gentrain.divergences.arrays import (
    Prior,
    kl_factor,
    log_over_mixture,
    mixture_kl_terms,
    split_prior,
    subtract_logs,
)
from gentrain.losses import Scores
from gentrain.sharding import Axes, by_columns

PIECE = 2**21  # logits: few enough to stay near the processor, enough to fill its matmuls
NARROWEST = 128  # columns, of however many rows: a piece is then still smaller than what most heads read


class Head(NamedTuple):
    """The last layer of a model, logits = hidden @ kernel + bias; no bias is None."""

    kernel: Float[Array, "width vocab"]
    bias: Float[Array, "vocab"] | None = None

    @property
    def vocab(self) -> int:
        """Columns: all, or those of a device."""
        return self.kernel.shape[-1]


def head_divergence(
    teacher_hidden: Float[Array, "batch length teacher_width"],
    teacher_head: Head,
    student_hidden: Float[Array, "batch length width"],
    student_head: Head,
    real_prior: Prior,
) -> Float[Array, "batch length"]:
    """The normalised divergence of two heads is JS_pi[P||Q] / (pi (1 - pi)) at each position, in nats.

    P = softmax(teacher_hidden @ kernel + bias), and Q is the student's. pi = real_prior is the weight on P and
    broadcasts to (batch, length): the value is KL[P||Q] at 0 and KL[Q||P] at 1. It is that of
    divergences.normalised_js_from_logits, in float32 for operands of any dtype; the operands of matmuls keep theirs.
    The gradient is the student's alone: the teacher and the prior have none. A temperature divides logits: divide the
    hidden states and the bias by it. On a mesh a device makes the logits of its own rows and positions, and of its own
    columns, as mesh.tensor splits them.
    A ValueError is raised if the vocabularies differ, or if a concrete pi is not in [0, 1].
    """
    if teacher_head.vocab != student_head.vocab:
        found = f"the teacher has {teacher_head.vocab} symbols and the student {student_head.vocab}"
        raise ValueError(f"vocabularies differ: {found}")
    weights = split_prior(real_prior, jnp.zeros((), jnp.float32), jnp)
    priors = tuple(jnp.broadcast_to(weight, student_hidden.shape[:2])[:, :, None] for weight in weights)
    return divergence((teacher_hidden, student_hidden), (teacher_head, student_head), priors)


@jax.custom_vjp
def divergence(hidden: Any, heads: Any, priors: Any) -> Float[Array, "batch length"]:
    """head_divergence of (teacher's, student's) and (pi, 1 - pi)."""
    return divergence_forward(hidden, heads, priors)[0]


def divergence_forward(hidden: Any, heads: Any, priors: Any) -> Any:
    """sum (P - Q) (g(log P/M) - g(log Q/M)), g being that of divergences.arrays, after a pass for the normalisers."""

    def of_device(rows, heads, axes):
        hidden, (pi, one_minus_pi) = rows
        log_z = tuple(log_normaliser(*layer, axes)[0] for layer in zip(hidden, heads, strict=True))

        def add(sums, columns):
            log_p, log_q, log_ratio = log_laws(hidden, heads, log_z, columns)
            difference = jnp.exp(log_p) - jnp.exp(log_q)
            terms = mixture_kl_terms(difference, log_ratio, pi, one_minus_pi, jnp)
            return tuple(total + by_row(jnp.sum, term) for total, term in zip(sums, terms, strict=True))

        zeros = jnp.zeros_like(pi)
        of_p, of_q = jax.lax.psum(over_columns(add, (zeros, zeros), hidden[1], heads[1]), axes.columns)
        return (of_p + of_q, of_q, log_z), ()

    (value, of_q, log_z), _ = by_columns(of_device, (hidden, priors), heads)
    return value[:, :, 0], (hidden, heads, priors, of_q, log_z)


def divergence_backward(residuals: Any, cotangent: Array) -> Any:
    """In the student's logit v: Q(v) (d(v) - sum Q d), d = log(Q/M) / pi being the derivative in Q(v).

    Q d is -(P - Q) (1 + g(log Q/M)), which divides by no prior, and its sum is KL[Q||M] / pi.
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


@jax.custom_vjp
def head_scores(hidden: Float[Array, "batch length width"], head: Head, tokens: Int[Array, "batch length"]) -> Scores:
    """losses.score of the logits hidden @ kernel + bias, in float32 and nats; on a mesh as head_divergence."""
    return scores_forward(hidden, head, tokens)[0]


def scores_forward(hidden: Array, head: Head, tokens: Array) -> Any:
    """One pass."""
    vocab, tokens = head.vocab, tokens[:, :, None]

    def of_device(rows, head, axes):
        hidden, tokens = rows

        def of_token(logits, columns):
            return jnp.where(columns.numbers(head, axes) == tokens, logits, 0)

        (largest, rest), (of_token, total) = log_normaliser(hidden, head, axes, of_token, lambda logits, _: logits)
        return (Scores(largest + rest - of_token, largest + rest, total / vocab), (largest, rest)), ()

    (scores, log_z), _ = by_columns(of_device, (hidden, tokens), head)
    return jax.tree.map(lambda x: x[:, :, 0], scores), (hidden, head, tokens, log_z)


def scores_backward(residuals: Any, cotangents: Scores) -> Any:
    """In logit v: Q(v) of log Z and of nll, of this also -1 where v is the token, and 1 / vocab of the mean."""
    hidden, head, tokens, log_z = residuals
    vocab = head.vocab

    def of_device(rows, head, axes):
        hidden, tokens, log_z, of = rows

        def of_logits(columns):
            law = jnp.exp(log_law(hidden, head, log_z, columns))
            of_token = jnp.where(columns.numbers(head, axes) == tokens, of.nll, 0)
            return (of.nll + of.log_z) * law - of_token + of.mean_logit / vocab

        return pull(of_logits, hidden, head, axes)

    rows = (hidden, tokens, log_z, jax.tree.map(lambda x: x[:, :, None], cotangents))
    return *by_columns(of_device, rows, head, head), None


head_scores.defvjp(scores_forward, scores_backward)


# Pieces.


class Columns(NamedTuple):
    """Those of a piece: `size` of them, from `first` on, among those of the device."""

    first: int | Array
    size: int

    def of(self, x: Float[Array, "*rows vocab"]) -> Float[Array, "*rows size"]:
        """These columns of an array."""
        return jax.lax.dynamic_slice_in_dim(x, self.first, self.size, axis=-1)

    def put(self, x: Float[Array, "*rows vocab"], piece: Float[Array, "*rows size"]) -> Float[Array, "*rows vocab"]:
        """The array with the piece in place of these columns."""
        return jax.lax.dynamic_update_slice_in_dim(x, piece, self.first, axis=-1)

    def numbers(self, head: Head, axes: Axes) -> Int[Array, "1 size"]:
        """The symbols that they stand for."""
        before = jax.lax.axis_index(axes.columns) * head.vocab if axes.columns else 0
        return before + self.first + jnp.arange(self.size)[None, :]


def over_columns(
    step: Callable[[Any, Columns], Any], carry: Any, hidden: Float[Array, "rows width"], head: Head
) -> Any:
    """The carry after step(carry, columns) of every piece."""
    size = min(head.vocab, max(PIECE // len(hidden), NARROWEST))
    count, rest = divmod(head.vocab, size)
    carry = jax.lax.fori_loop(0, count, lambda number, carry: step(carry, Columns(number * size, size)), carry)
    return step(carry, Columns(count * size, rest)) if rest else carry


def make_logits(hidden: Float[Array, "rows width"], head: Head, columns: Columns) -> Float[Array, "rows size"]:
    """A piece, in float32."""
    logits = jnp.matmul(hidden, columns.of(head.kernel).astype(hidden.dtype), preferred_element_type=jnp.float32)
    return logits if head.bias is None else logits + columns.of(head.bias).astype(jnp.float32)[None, :]


def by_row(reduce: Callable, piece: Float[Array, "rows size"]) -> Float[Array, "rows 1"]:
    """The sum or the like of each row."""
    return reduce(piece, axis=-1, keepdims=True)


def log_normaliser(hidden: Float[Array, "rows width"], head: Head, axes: Axes, *terms: Callable) -> tuple[Any, Any]:
    """log sum_v exp(logits[v]) over the columns of all devices, and the sums of terms(logits, columns): (rows, 1) each.

    The logarithm is in two parts, the largest logit and what is to be added to it: their sum would have fewer digits.
    """

    def add(carry, columns):
        largest, total, sums = carry
        logits = make_logits(hidden, head, columns)
        now = jnp.maximum(largest, by_row(jnp.max, logits))
        total = total * jnp.exp(largest - now) + by_row(jnp.sum, jnp.exp(logits - now))
        return now, total, [x + by_row(jnp.sum, term(logits, columns)) for x, term in zip(sums, terms, strict=True)]

    zeros = jnp.zeros((len(hidden), 1), jnp.float32)
    least = jnp.full_like(zeros, jnp.finfo(jnp.float32).min)
    largest, total, sums = over_columns(add, (least, zeros, [zeros] * len(terms)), hidden, head)
    of_all = jax.lax.pmax(largest, axes.columns)
    total, sums = jax.lax.psum((total * jnp.exp(largest - of_all), sums), axes.columns)
    return (of_all, jnp.log(total)), sums


def log_law(
    hidden: Float[Array, "rows width"], head: Head, log_z: tuple[Array, Array], columns: Columns
) -> Float[Array, "rows size"]:
    """Log-probabilities in a piece."""
    largest, rest = log_z
    return make_logits(hidden, head, columns) - largest - rest


def log_laws(hidden: Any, heads: Any, log_z: Any, columns: Columns) -> tuple[Array, Array, Array]:
    """log P, log Q and log P/Q in a piece; the last is 0 where neither has mass."""
    log_p, log_q = (log_law(*layer, columns) for layer in zip(hidden, heads, log_z, strict=True))
    return log_p, log_q, subtract_logs(log_p, log_q, jnp)


def pull(
    of_logits: Callable[[Columns], Array], hidden: Float[Array, "rows width"], head: Head, axes: Axes
) -> tuple[Float[Array, "rows width"], Head]:
    """The gradients in what is hidden and in the head, from those in the logits of a piece; sums are in float32."""

    def add(gradients, columns):
        of_hidden, of_head = gradients
        piece = of_logits(columns)
        factor, kernel = piece.astype(hidden.dtype), columns.of(head.kernel).astype(hidden.dtype)
        of_hidden += jnp.matmul(factor, kernel.T, preferred_element_type=jnp.float32)
        of_kernel = jnp.matmul(hidden.T, factor, preferred_element_type=jnp.float32)
        of_piece = Head(of_kernel, None if head.bias is None else jnp.sum(piece, axis=0))
        return of_hidden, jax.tree.map(columns.put, of_head, of_piece)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (hidden, head))
    of_hidden, of_head = over_columns(add, zeros, hidden, head)
    gradients = jax.lax.psum(of_hidden, axes.columns), jax.lax.psum(of_head, axes.rows)
    return jax.tree.map(lambda gradient, x: gradient.astype(x.dtype), gradients, (hidden, head))
