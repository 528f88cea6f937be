"""Divergences between a data law P and a model law Q, in nats: arrays in, arrays out; no parameters, no config.

The last axis of a law is its support, the axes before it are a batch. numpy in gives numpy float64 out, for exact work;
JAX in gives JAX out, safe under jit, vmap and grad. `real_prior` is pi, the weight on P in M = pi P + (1 - pi) Q.
Concrete arrays are checked, and a ValueError says what is wrong with them; traced arrays are not.

One identity carries the module. With log-ratios to the mixture, and no mass and no prior in a denominator,

    KL[P||M] / (1 - pi) = sum (P - Q) g(log P/M),    g(l) = l / (1 - exp(-l)) - 1,

and so on for Q. Hence JS_pi / (pi (1 - pi)) = sum (P - Q) [g(log P/M) - g(log Q/M)]: continuous in pi, the forward KL
at 0, the reverse KL at 1, and exact to rounding near them and near P = Q, where differences of logarithms cancel.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

AnyArray: TypeAlias = Any  # a jax.Array or a numpy array (or scalar): what goes in comes out
Law: TypeAlias = Float[AnyArray, "*#batch support"]
Table: TypeAlias = Float[AnyArray, "*sites"]
Values: TypeAlias = Float[AnyArray, "..."]
Prior: TypeAlias = Float[AnyArray, "..."] | float
Prefixes: TypeAlias = Literal["data", "model"]


class Estimate(NamedTuple):
    """A Monte Carlo mean and the standard deviation of its error."""

    value: Values
    standard_error: Values


# Arrays of either kind, and what is wrong with them.


def _arrays(*values: Any) -> tuple[Any, ...]:
    """The namespace of the values, then the values in its floats: numpy's float64, JAX's float32 or wider."""
    if any(isinstance(value, jax.Array) for value in values):
        dtype = jnp.promote_types(jnp.result_type(*values), jnp.float32)
        return jnp, *(jnp.asarray(value, dtype) for value in values)
    return np, *(np.asarray(value, np.float64) for value in values)


def _prior(real_prior: Any, like: Any, xp: Any) -> tuple[Any, Any]:
    """(pi, 1 - pi) in the floats of `like`; subtracted in float64 first where pi is a plain number near 1."""
    traced = isinstance(real_prior, jax.core.Tracer)
    if not traced and not np.all((np.asarray(real_prior) >= 0) & (np.asarray(real_prior) <= 1)):
        raise ValueError(f"real_prior must lie in [0, 1], not {real_prior}")
    pi = real_prior if isinstance(real_prior, jax.Array) else np.asarray(real_prior, np.float64)
    return xp.asarray(pi, like.dtype), xp.asarray(1 - pi, like.dtype)


def _check(joint: bool = False, **laws: Any) -> None:
    """Raises unless the laws share a support (a joint table: all its axes) and each is one, up to rounding."""
    shapes = {name: np.shape(law) if joint else np.shape(law)[-1:] for name, law in laws.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError("supports differ: " + ", ".join(f"{name} has {shape}" for name, shape in shapes.items()))
    for name, law in laws.items():
        if isinstance(law, jax.core.Tracer):
            continue
        values = np.asarray(law)
        if np.any(values < 0):
            raise ValueError(f"{name} has negative entries, down to {values.min():.3g}")
        tolerance = 1e-6 if values.dtype == np.float64 else 1e-4
        total = values.sum(axis=None if joint else -1, dtype=np.float64)
        if not np.all(np.abs(total - 1) <= tolerance):
            raise ValueError(
                f"{name} is not normalised: it sums to {np.ravel(total)[np.argmax(np.abs(total - 1))]:.8g}"
            )


def _check_prefixes(prefixes: str) -> None:
    if prefixes not in ("data", "model"):
        raise ValueError(f"prefixes must be 'data' or 'model', not {prefixes!r}")


# The pieces: logarithms that know zero, and the two halves of the identity above.


def _log(values: Any, xp: Any) -> Any:
    """log, and -inf at 0 with no warning and no NaN in the gradient."""
    positive = values > 0
    return xp.where(positive, xp.log(xp.where(positive, values, 1)), -xp.inf)


def _log_ratio(log_p: Any, log_q: Any, xp: Any) -> Any:
    """log P/Q, and 0 where both are 0: such a cell counts for nothing."""
    empty = xp.isneginf(log_p) & xp.isneginf(log_q)
    return xp.where(empty, 0, log_p) - xp.where(empty, 0, log_q)


def _log_over_mixture(own: Any, other: Any, log_ratio: Any, xp: Any) -> Any:
    """log A/M, M = own A + other B, from log A/B: never above -log own."""
    present = other > 0
    rest = xp.where(present, xp.log(xp.where(present, other, 1)) - log_ratio, -xp.inf)
    return -xp.logaddexp(_log(own, xp), rest)


def _slope(log_ratio: Any, xp: Any) -> Any:
    """g(l) = l / (1 - exp(-l)) - 1: increasing, -1 at -inf, l/2 near 0, l - 1 far above."""
    small = xp.abs(log_ratio) < 1e-2
    near = xp.where(small, log_ratio, 0)
    far = xp.where(small, 1, xp.maximum(log_ratio, -80))  # exp(80) is still a float32, and g(-80) is -1 to rounding
    return xp.where(small, near / 2 + near**2 / 12 - near**4 / 720, far / -xp.expm1(-far) - 1)


def _sides(gap: Any, log_ratio: Any, pi: Any, rest: Any, xp: Any) -> tuple[Any, Any]:
    """Cell by cell, the terms of KL[P||M] / (1 - pi) and of KL[Q||M] / pi, none of them negative."""
    toward_p = gap * _slope(_log_over_mixture(pi, rest, log_ratio, xp), xp)
    toward_q = -gap * _slope(_log_over_mixture(rest, pi, -log_ratio, xp), xp)
    return toward_p, toward_q


def _mixture_kls(p: Any, q: Any, real_prior: Any) -> tuple[Any, ...]:
    """The namespace, KL[P||M] / (1 - pi), KL[Q||M] / pi, pi and 1 - pi; the prior broadcasts to the batch."""
    _check(p=p, q=q)
    xp, p, q, _ = _arrays(p, q, real_prior)
    pi, rest = _prior(real_prior, p, xp)
    p, q, pi_, rest_ = xp.broadcast_arrays(p, q, pi[..., None], rest[..., None])
    toward_p, toward_q = _sides(p - q, _log_ratio(_log(p, xp), _log(q, xp), xp), pi_, rest_, xp)
    return xp, toward_p.sum(-1), toward_q.sum(-1), pi, rest


def _weighted(weight: Any, values: Any, xp: Any) -> Any:
    """weight * values, and 0 where the weight is 0 even if the value is infinite."""
    return xp.where(weight > 0, weight * xp.where(weight > 0, values, 0), 0)


# Between laws that are given as tables of probabilities.


def entropy(p: Law) -> Values:
    """H[P] = -sum P log P, nats; one number for each law of the batch."""
    _check(p=p)
    xp, p = _arrays(p)
    return -xp.sum(_weighted(p, _log(p, xp), xp), axis=-1)


def kl(p: Law, q: Law) -> Values:
    """KL[P||Q] = sum P log P/Q, nats: infinite where P has mass and Q has none."""
    _check(p=p, q=q)
    xp, p, q = _arrays(p, q)
    return xp.sum((p - q) * _slope(_log_ratio(_log(p, xp), _log(q, xp), xp), xp), axis=-1)


def js(p: Law, q: Law, real_prior: Prior) -> Values:
    """JS_pi[P||Q] = pi KL[P||M] + (1 - pi) KL[Q||M], nats: at most H2(pi), and 0 at both ends of pi.

    The information that a draw of M holds on which law it came from. real_prior broadcasts to the batch.
    Huszár, "How (not) to train your generative model" (2015).
    """
    xp, toward_p, toward_q, pi, rest = _mixture_kls(p, q, real_prior)
    return _weighted(pi * rest, toward_p + toward_q, xp)


def normalised_js(p: Law, q: Law, real_prior: Prior) -> Values:
    """JN_pi[P||Q] = JS_pi / (pi (1 - pi)), nats: KL[P||Q] at pi = 0, KL[Q||P] at 1, continuous between.

    Near P = Q it is chi^2 / 2 for every pi, so values, gradients and learning rates compare across pi.
    real_prior broadcasts to the batch.
    """
    _, toward_p, toward_q, _, _ = _mixture_kls(p, q, real_prior)
    return toward_p + toward_q


def frontier_integral(p: Law, q: Law) -> Values:
    """FI = 2 int_0^1 JS_pi dpi = sum (P + Q)/2 - P Q log(P/Q) / (P - Q): in [0, 1], 1 for disjoint supports.

    The dial of Huszár's family averaged out. Liu et al., "Divergence frontiers for generative models" (2021).
    """
    _check(p=p, q=q)
    xp, p, q = _arrays(p, q)
    # A term is (P - Q) c(x), x = log(P/Q) / 2, c(x) = (coth x - x / sinh^2 x) / 2: near 0 a difference of 1/x and 1/x.
    x = xp.clip(_log_ratio(_log(p, xp), _log(q, xp), xp) / 2, -40, 40)  # c(40) is 1/2 to rounding
    small = xp.abs(x) < 0.03
    near, far = xp.where(small, x, 0), xp.where(small, 1, x)
    c = xp.where(
        small,
        near / 3 - 2 * near**3 / 45 + 2 * near**5 / 315,
        (1 / xp.tanh(far) - far / xp.sinh(far) ** 2) / 2,
    )
    return xp.sum((p - q) * c, axis=-1)


def mauve_curve(
    p: Float[AnyArray, "support"],
    q: Float[AnyArray, "support"],
    real_priors: Float[AnyArray, "points"],
    scale: float | None = None,
) -> tuple[Float[AnyArray, "points"], Float[AnyArray, "points"]]:
    """The frontier (KL[P||M_pi], KL[Q||M_pi]) over pi, nats; with a scale c, (exp(-c KL[P||M]), exp(-c KL[Q||M])).

    The pi-weighted sum of the first pair is JS_pi. Pillutla et al., "MAUVE" (2021), with c = 5.
    """
    xp, toward_p, toward_q, pi, rest = _mixture_kls(p, q, real_priors)
    from_p, from_q = _weighted(rest, toward_p, xp), _weighted(pi, toward_q, xp)
    return (from_p, from_q) if scale is None else (xp.exp(-scale * from_p), xp.exp(-scale * from_q))


# The same from log-probabilities and from logits: for losses, where a float32 probability may be 0.


def kl_from_log(log_p: Law, log_q: Law) -> Values:
    """KL[P||Q] from log-probabilities, nats: finite, with finite gradients, wherever the logarithms are."""
    xp, log_p, log_q = _arrays(log_p, log_q)
    _check(p=_concrete(log_p, np.exp), q=_concrete(log_q, np.exp))
    return xp.sum((xp.exp(log_p) - xp.exp(log_q)) * _slope(_log_ratio(log_p, log_q, xp), xp), axis=-1)


def normalised_js_from_logits(logits_p: Law, logits_q: Law, real_prior: Prior) -> Values:
    """JN_pi[softmax(logits_p)||softmax(logits_q)], nats: one value a token; a logit of -inf is a state left out.

    At pi = 0 this is the forward KL of distillation and at pi = 1 the reverse: generalised knowledge distillation
    (Agarwal et al., 2024) with the factor 1 / (pi (1 - pi)) that makes its two ends meet the KLs.
    """
    if np.shape(logits_p)[-1:] != np.shape(logits_q)[-1:]:
        raise ValueError(f"supports differ: p has {np.shape(logits_p)[-1:]}, q has {np.shape(logits_q)[-1:]}")
    xp, p, q, _ = _arrays(logits_p, logits_q, real_prior)
    log_p, log_q = _log_softmax(p, xp), _log_softmax(q, xp)
    pi, rest = _prior(real_prior, p, xp)
    log_p, log_q, pi, rest = xp.broadcast_arrays(log_p, log_q, pi[..., None], rest[..., None])
    toward_p, toward_q = _sides(xp.exp(log_p) - xp.exp(log_q), _log_ratio(log_p, log_q, xp), pi, rest, xp)
    return (toward_p + toward_q).sum(-1)


def _log_softmax(logits: Any, xp: Any) -> Any:
    return jax.nn.log_softmax(logits) if xp is jnp else logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def _concrete(value: Any, function: Any) -> Any:
    """function(value) on the host, or the tracer itself, whose shape is all there is to check."""
    return value if isinstance(value, jax.core.Tracer) else function(np.asarray(value))


# A joint law of several symbols: a table with one axis a site.


def position_marginals(joint: Table) -> Float[AnyArray, "sites vocab"]:
    """The law of each symbol of a table of shape (V,) * N: row t is the marginal of axis t."""
    _check(joint=True, table=joint)
    xp, table = _arrays(joint)
    return xp.stack(_marginals(table))


def _marginals(table: Any) -> list[Any]:
    sites = range(table.ndim)
    return [table.sum(axis=tuple(other for other in sites if other != site)) for site in sites]


def _with_product(joint: Table) -> tuple[Any, Any]:
    """The table and the product of its marginals, both flat."""
    _check(joint=True, table=joint)
    _, table = _arrays(joint)
    first, *others = _marginals(table)
    for marginal in others:
        first = first[..., None] * marginal.reshape((1,) * first.ndim + (-1,))
    return table.reshape(-1), first.reshape(-1)


def total_correlation(joint: Table) -> Values:
    """TC = KL[P || prod_t P_t] = sum_t H[P_t] - H[P], nats, over all axes of the table; 0 iff they are independent."""
    return kl(*_with_product(joint))


def mutual_information(joint: Float[AnyArray, "x y"]) -> Values:
    """I(x; y) = KL[P || P_x P_y], nats, of a table of two symbols."""
    return kl(*_with_product(_pair(joint)))


def lautum_information(joint: Float[AnyArray, "x y"]) -> Values:
    """L(x; y) = KL[P_x P_y || P], nats: mutual information read backwards (Palomar and Verdú, 2008)."""
    table, product = _with_product(_pair(joint))
    return kl(product, table)


def _pair(joint: Any) -> Any:
    if np.ndim(joint) != 2:
        raise ValueError(f"a table of two symbols has 2 axes, not {np.ndim(joint)}")
    return joint


# Sequences: tables of shape (V,) * N, read from the first axis to the last.


def _steps(p_table: Table, q_table: Table) -> tuple[Any, list[tuple[Any, Any, Any, Any]]]:
    """For each t, flat over prefixes: P(x_<t), Q(x_<t), P(x_t|x_<t), Q(x_t|x_<t).

    The law after a prefix of no mass is taken to be uniform: there is none to read off.
    """
    _check(joint=True, p=p_table, q=q_table)
    xp, p, q = _arrays(p_table, q_table)

    def step(table: Any, t: int) -> tuple[Any, Any]:
        joint = table.reshape(table.shape[0] ** t, table.shape[0], -1).sum(-1)
        prefix = joint.sum(-1)
        seen = prefix[:, None] >= xp.finfo(table.dtype).tiny  # a subnormal mass has no digits left to divide
        return prefix, xp.where(seen, joint / xp.where(seen, prefix[:, None], 1), 1 / table.shape[0])

    return xp, [(*step(p, t), *step(q, t)) for t in range(p.ndim)]


def js_by_steps(p_table: Table, q_table: Table, real_prior: float) -> Float[AnyArray, "sites"]:
    """The chain rule of JS_pi, step by step, nats: the sum over steps is JS_pi of the whole sequences.

    JS_pi[P||Q] = sum_t E_{x_<t ~ M} JS_{w_t}[P(.|x_<t) || Q(.|x_<t)],  w_t = pi P(x_<t) / M(x_<t): the posterior that
    the prefix is real. Tables of shape (V,) * N; the weight at the prefix is what the token-level average lacks.
    """
    xp, steps = _steps(p_table, q_table)
    pi, rest = _prior(real_prior, steps[0][0], xp)
    terms = []
    for p_prefix, p_next, q_prefix, q_next in steps:
        real, fake = pi * p_prefix, rest * q_prefix
        mixture = real + fake
        posterior = real / xp.where(mixture > 0, mixture, 1)
        terms.append(xp.sum(mixture * js(p_next, q_next, posterior)))
    return xp.stack(terms)


def token_js(
    p_table: Table, q_table: Table, real_prior: float, prefixes: Prefixes = "data"
) -> Float[AnyArray, "sites"]:
    """E_{x_<t} JS_pi[P(.|x_<t) || Q(.|x_<t)] at each step, nats, with one weight for all prefixes.

    Prefixes are drawn from P ('data') or Q ('model'). What token-level distillation minimises (Agarwal et al., 2024);
    its sum over steps is not JS_pi of the sequences. Tables of shape (V,) * N; after a prefix of no mass a law counts
    as uniform.
    """
    _check_prefixes(prefixes)
    xp, steps = _steps(p_table, q_table)
    return xp.stack(
        [xp.sum((p if prefixes == "data" else q) * js(p_next, q_next, real_prior)) for p, p_next, q, q_next in steps]
    )


def token_kl(p_table: Table, q_table: Table, prefixes: Prefixes = "data") -> Float[AnyArray, "sites"]:
    """E_{x_<t} KL[P(.|x_<t) || Q(.|x_<t)] at each step, nats, on prefixes of P ('data') or of Q ('model').

    On 'data' the steps add up to KL[P||Q]; 'model' less 'data' is the exposure-bias gap. Tables of shape (V,) * N;
    after a prefix of no mass a law counts as uniform.
    """
    _check_prefixes(prefixes)
    xp, steps = _steps(p_table, q_table)
    return xp.stack(
        [xp.sum(_weighted(p if prefixes == "data" else q, kl(p_next, q_next), xp)) for p, p_next, q, q_next in steps]
    )


# As an f-divergence, and what a critic sees.


def f_js(u: Values, real_prior: Prior) -> Values:
    """f_pi(u) = pi u log u - (1 - pi + pi u) log(1 - pi + pi u), u = P/Q >= 0: JS_pi[P||Q] = E_Q f_pi(P/Q).

    f_pi(1) = f_pi'(1) = 0 and f_pi''(1) = pi (1 - pi). real_prior broadcasts to u.
    """
    xp, u, _ = _arrays(u, real_prior)
    u, pi, rest = xp.broadcast_arrays(u, *_prior(real_prior, u, xp))
    return pi * rest * sum(_sides(u - 1, _log(u, xp), pi, rest, xp))


def js_conjugate(t: Values, real_prior: Prior) -> Values:
    """f*_pi(t) = (1 - pi) log[(1 - pi) / (1 - pi exp(t / pi))] for t < -pi log pi, and infinite from there on.

    JS_pi[P||Q] = sup_T E_P T - E_Q f*_pi(T), attained at T = pi log(P/M) = pi log(D / pi) for the optimal critic D.
    Nowozin et al., "f-GAN" (2016), weighted Jensen-Shannon. At pi = 0 and 1, where f_pi is 0, it is 0 for t <= 0.
    """
    xp, t, _ = _arrays(t, real_prior)
    t, pi, rest = xp.broadcast_arrays(t, *_prior(real_prior, t, xp))
    inside = (pi > 0) & (rest > 0)
    pi_, rest_ = xp.where(inside, pi, 0.5), xp.where(inside, rest, 0.5)
    exponent = xp.where(inside, t, -1) / pi_ + xp.log(pi_)
    bounded = exponent < 0
    value = rest_ * (xp.log(rest_) - xp.log(-xp.expm1(xp.where(bounded, exponent, -1))))
    return xp.where(inside, xp.where(bounded, value, xp.inf), xp.where(t <= 0, 0.0, xp.inf))


def js_activation(v: Values, real_prior: Prior) -> Values:
    """T(v) = -pi log pi - log(1 + exp(-v)): any real v to the domain t < -pi log pi of js_conjugate.

    Nowozin et al., "f-GAN" (2016), weighted Jensen-Shannon.
    """
    xp, v, _ = _arrays(v, real_prior)
    v, pi, _rest = xp.broadcast_arrays(v, *_prior(real_prior, v, xp))
    return -_weighted(pi, _log(pi, xp), xp) - xp.logaddexp(0, -v)


def optimal_logit(log_p: Values, log_q: Values, real_prior: Prior) -> Values:
    """l* = log(pi / (1 - pi)) + log P/Q: the logit of D* = pi P / M, where each example is real with probability pi.

    Log-densities of the same examples; real_prior broadcasts to them. Infinite at pi = 0 and 1.
    """
    xp, log_p, log_q, _ = _arrays(log_p, log_q, real_prior)
    pi, rest = _prior(real_prior, log_p, xp)
    log_p, log_q, pi, rest = xp.broadcast_arrays(log_p, log_q, pi, rest)
    return _log(pi, xp) - _log(rest, xp) + _log_ratio(log_p, log_q, xp)


# From log-densities at samples: the last axis is the sample.


def monte_carlo_kl(log_p: Float[AnyArray, "*batch samples"], log_q: Float[AnyArray, "*batch samples"]) -> Estimate:
    """KL[P||Q] as the mean of log P/Q over samples of P, nats. ValueError below two samples."""
    xp, log_p, log_q = _arrays(log_p, log_q)
    return _mean(_log_ratio(log_p, log_q, xp), xp)


def monte_carlo_js(
    log_p_at_p: Float[AnyArray, "*batch real"],
    log_q_at_p: Float[AnyArray, "*batch real"],
    log_p_at_q: Float[AnyArray, "*batch fake"],
    log_q_at_q: Float[AnyArray, "*batch fake"],
    real_prior: float,
) -> Estimate:
    """JS_pi = pi E_P log P/M + (1 - pi) E_Q log Q/M, nats, from both log-densities at samples of each law.

    Both terms are bounded above, by -log pi and -log(1 - pi), so nothing is clipped. ValueError below two samples.
    """
    xp, p_at_p, q_at_p, p_at_q, q_at_q = _arrays(log_p_at_p, log_q_at_p, log_p_at_q, log_q_at_q)
    pi, rest = _prior(real_prior, p_at_p, xp)
    real = _mean(_log_over_mixture(pi, rest, _log_ratio(p_at_p, q_at_p, xp), xp), xp)
    fake = _mean(_log_over_mixture(rest, pi, _log_ratio(q_at_q, p_at_q, xp), xp), xp)
    return Estimate(pi * real.value + rest * fake.value, xp.hypot(pi * real.standard_error, rest * fake.standard_error))


def _mean(values: Any, xp: Any) -> Estimate:
    n = values.shape[-1]
    if n < 2:
        raise ValueError(f"an estimate and its error need two samples or more, not {n}")
    return Estimate(xp.mean(values, axis=-1), xp.std(values, axis=-1, ddof=1) / n**0.5)
