"""Divergences of sequences step by step, from tables of shape (V,) * N that are read from the first axis to the last.

P(x_<t) is the probability of a prefix, and P(.|x_<t) is the conditional distribution of the next symbol. A prefix of no
mass has no conditional, and the uniform distribution stands in for it.
"""

from typing import Any, Literal, TypeAlias

from jaxtyping import Float

from gentrain.divergences.arrays import (
    AnyArray,
    Table,
    check_joints,
    convert_arrays,
    multiply_by_weight,
    split_prior,
)
from gentrain.divergences.kl_js import js, kl

Prefixes: TypeAlias = Literal["data", "model"]


def js_by_steps(p_table: Table, q_table: Table, real_prior: float) -> Float[AnyArray, "sites"]:
    """The chain rule is JS_pi[P||Q] = sum_t E_{x_<t ~ M} JS_{w_t}[P(.|x_<t) || Q(.|x_<t)], in nats, and term t is here.

    The weight w_t = pi P(x_<t) / M(x_<t) is the posterior probability that the prefix is real. The token-level average
    of token_js lacks it. The tables have shape (V,) * N, and the value has shape (N,).
    A ValueError is raised if the shapes differ, if a table is negative or not normalised, or if pi is not in [0, 1].
    """
    xp, steps = _condition_on_prefixes(p_table, q_table)
    pi, one_minus_pi = split_prior(real_prior, steps[0][0], xp)
    terms = []
    for p_prefixes, p_conditionals, q_prefixes, q_conditionals in steps:
        p_share, q_share = pi * p_prefixes, one_minus_pi * q_prefixes
        mixture = p_share + q_share
        posterior = p_share / xp.where(mixture > 0, mixture, 1)
        terms.append(xp.sum(mixture * js(p_conditionals, q_conditionals, posterior)))
    return xp.stack(terms)


def token_js(
    p_table: Table, q_table: Table, real_prior: float, prefixes: Prefixes = "data"
) -> Float[AnyArray, "sites"]:
    """The token-level divergence is E_{x_<t} JS_pi[P(.|x_<t) || Q(.|x_<t)] at each step t, in nats.

    Prefixes are drawn from P ('data') or from Q ('model'), and pi is the same for all of them. Its sum over steps is
    not JS_pi of the sequences. The tables have shape (V,) * N, and the value has shape (N,).
    A ValueError is raised if the shapes differ, if a table is negative or not normalised, if pi is not in [0, 1], or
    if prefixes is neither of the two.
    Token-level distillation minimises it (Agarwal et al., 2024).
    """
    _check_prefixes(prefixes)
    xp, steps = _condition_on_prefixes(p_table, q_table)
    terms = []
    for p_prefixes, p_conditionals, q_prefixes, q_conditionals in steps:
        weights = p_prefixes if prefixes == "data" else q_prefixes
        terms.append(xp.sum(weights * js(p_conditionals, q_conditionals, real_prior)))
    return xp.stack(terms)


def token_kl(p_table: Table, q_table: Table, prefixes: Prefixes = "data") -> Float[AnyArray, "sites"]:
    """The token-level divergence is E_{x_<t} KL[P(.|x_<t) || Q(.|x_<t)] at each step t, in nats.

    Prefixes are drawn from P ('data') or from Q ('model'). On 'data' the steps add up to KL[P||Q] of the sequences.
    The value on 'model' less the value on 'data' is the exposure-bias gap. The tables have shape (V,) * N, and the
    value has shape (N,).
    A ValueError is raised if the shapes differ, if a table is negative or not normalised, or if prefixes is neither
    of the two.
    """
    _check_prefixes(prefixes)
    xp, steps = _condition_on_prefixes(p_table, q_table)
    terms = []
    for p_prefixes, p_conditionals, q_prefixes, q_conditionals in steps:
        weights = p_prefixes if prefixes == "data" else q_prefixes
        terms.append(xp.sum(multiply_by_weight(weights, kl(p_conditionals, q_conditionals), xp)))
    return xp.stack(terms)


def _condition_on_prefixes(p_table: Table, q_table: Table) -> tuple[Any, list[tuple[Any, Any, Any, Any]]]:
    """Return the namespace, and for each t, flat over prefixes: P(x_<t), P(.|x_<t), Q(x_<t), Q(.|x_<t)."""
    check_joints(p=p_table, q=q_table)
    xp, p_table, q_table = convert_arrays(p_table, q_table)
    return xp, [(*_condition(p_table, t, xp), *_condition(q_table, t, xp)) for t in range(p_table.ndim)]


def _condition(table: Any, t: int, xp: Any) -> tuple[Any, Any]:
    """Return the probabilities of the prefixes x_<t, and the conditional distribution of x_t after each."""
    vocab = table.shape[0]
    joint = table.reshape(vocab**t, vocab, -1).sum(-1)
    prefixes = joint.sum(-1)
    # A subnormal mass has no digits left to divide.
    has_mass = prefixes[:, None] >= xp.finfo(table.dtype).tiny
    return prefixes, xp.where(has_mass, joint / xp.where(has_mass, prefixes[:, None], 1), 1 / vocab)


def _check_prefixes(prefixes: str) -> None:
    """Raise a ValueError unless prefixes is 'data' or 'model'."""
    if prefixes not in ("data", "model"):
        raise ValueError(f"prefixes must be 'data' or 'model', not {prefixes!r}")
