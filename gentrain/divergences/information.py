"""Information that several symbols share, from a table of their joint distribution with one axis a symbol."""

from typing import Any

import numpy as np
from jaxtyping import Float

from gentrain.divergences.arrays import AnyArray, Table, Values, check_joints, convert_arrays
from gentrain.divergences.kl_js import kl


def position_marginals(joint: Table) -> Float[AnyArray, "sites vocab"]:
    """The marginals are P_t(x_t) = sum over all other axes of P(x_1, ..., x_N).

    joint has shape (V,) * N, and the value has shape (N, V): row t is the marginal of axis t.
    A ValueError is raised if the table is negative or not normalised.
    """
    check_joints(table=joint)
    xp, table = convert_arrays(joint)
    return xp.stack(_marginalise(table))


def total_correlation(joint: Table) -> Values:
    """The total correlation is TC = KL[P || prod_t P_t] = sum_t H[P_t] - H[P], in nats.

    It is 0 if and only if all the symbols are independent. joint has one axis a symbol, and the value is a scalar.
    A ValueError is raised if the table is negative or not normalised.
    The source is Watanabe, "Information theoretical analysis of multivariate correlation" (1960).
    """
    return kl(*_flatten_with_product(joint))


def mutual_information(joint: Float[AnyArray, "x y"]) -> Values:
    """The mutual information is I(x; y) = KL[P || P_x P_y], in nats.

    joint has shape (X, Y), and the value is a scalar.
    A ValueError is raised if the table does not have 2 axes, or if it is negative or not normalised.
    """
    _check_pair(joint)
    return kl(*_flatten_with_product(joint))


def lautum_information(joint: Float[AnyArray, "x y"]) -> Values:
    """The lautum information is L(x; y) = KL[P_x P_y || P], in nats: mutual information read backwards.

    joint has shape (X, Y), and the value is a scalar.
    A ValueError is raised if the table does not have 2 axes, or if it is negative or not normalised.
    The source is Palomar and Verdú, "Lautum information" (2008).
    """
    _check_pair(joint)
    table, product = _flatten_with_product(joint)
    return kl(product, table)


def _marginalise(table: Any) -> list[Any]:
    """Return the marginal of each axis."""
    sites = range(table.ndim)
    return [table.sum(axis=tuple(other for other in sites if other != site)) for site in sites]


def _flatten_with_product(joint: Table) -> tuple[Any, Any]:
    """Return the table and the product of its marginals, both flat."""
    check_joints(table=joint)
    _, table = convert_arrays(joint)
    product, *marginals = _marginalise(table)
    for marginal in marginals:
        product = product[..., None] * marginal.reshape((1,) * product.ndim + (-1,))
    return table.reshape(-1), product.reshape(-1)


def _check_pair(joint: Any) -> None:
    """Raise a ValueError unless the table is of two symbols."""
    if np.ndim(joint) != 2:
        raise ValueError(f"a table of two symbols has 2 axes, not {np.ndim(joint)}")
