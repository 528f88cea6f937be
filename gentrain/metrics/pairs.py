"""Sums and least values over all pairs of two sets of points, in blocks: what is held does not grow with the pairs.

Rows are spread over the devices of this process, which work in float64. In a run of several processes each does all.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gentrain import sharding

BLOCK = 1 << 19  # pairs of which a device holds a number at once

Block = Callable[[Any, Any, jax.Array], tuple[Any, Any]]


def over_pairs(of_block: Block, rows: Any, columns: Any) -> tuple[Any, Any]:
    """Of each row (n, …) and of each column (m, …) what a function finds in their pairs, block by block.

    of_block(rows (size, …), columns, there (size,) bool) -> arrays (size, …), and arrays (m, …) that are added up over
    the blocks. Rows that are not there fill the last block up: they are to add nothing. All are arrays or trees of
    them. A function is compiled once: it is not made anew for each call.
    """
    count, many = (len(jax.tree.leaves(arrays)[0]) for arrays in (rows, columns))
    devices = min(jax.local_device_count(), -(-count * many // BLOCK))  # a block each, at least
    size = min(max(1, BLOCK // many), -(-count // devices))
    place = np.arange(-(-count // (size * devices)) * size * devices)
    filled = jax.tree.map(lambda x: x[place % count], rows), place < count
    with jax.enable_x64(True):
        of_rows, added = jax.device_get(compiled(of_block, size, devices)(columns, filled))
    return jax.tree.map(lambda x: x[:count], of_rows), jax.tree.map(lambda x: x.sum(0), added)


@cache
def compiled(of_block: Block, size: int, devices: int) -> Callable[..., Any]:
    """The function for all rows of each device."""

    def of_device(columns, rows):
        blocks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), rows)

        def step(total, block):
            found, added = of_block(block[0], columns, block[1])
            return jax.tree.map(jnp.add, total, added), found

        first = jax.tree.map(lambda x: x[0], blocks)
        shapes = jax.eval_shape(of_block, first[0], columns, first[1])[1]
        total, found = jax.lax.scan(step, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), blocks)
        found = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
        return found, jax.tree.map(lambda x: x[None], total)

    return sharding.by_own_rows(of_device, devices)


def squares(points: jax.Array, others: jax.Array) -> jax.Array:
    """Squared distances, up to 1e-15 of the points' own squared lengths."""
    # |x - y|^2 = |x|^2 + |y|^2 - 2 x y, which one matmul gives for all pairs.
    of_points, of_others = (jnp.square(each).sum(1) for each in (points, others))
    return of_points[:, None] + of_others[None, :] - 2 * (points @ others.T)
