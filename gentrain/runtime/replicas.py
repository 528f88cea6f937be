"""Copies of an array on several devices are the same bits, unless a device computes wrongly."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool

from gentrain import sharding
from gentrain.runtime.manifest import checksum


def make_check(state: Any, mesh: Mesh) -> Callable[[Any], Bool[Array, "arrays"]]:
    """check(state) -> for each of its arrays, in order, whether two copies of it differ; compiled.

    state: of jax.ShapeDtypeStruct with shardings on the mesh. Each device adds up the bits of its own part; copies are
    the same where the largest of their sums is the least.
    """
    specs = [leaf.sharding.spec for leaf in jax.tree.leaves(state)]

    def differ(*parts):
        found = []
        for part, spec in zip(parts, specs, strict=True):
            copied = tuple(axis for axis in mesh.axis_names if axis not in split_axes(spec))
            total = checksum(part)
            differs = jax.lax.pmax(total, copied) != jax.lax.pmin(total, copied) if copied else jnp.zeros((), bool)
            found.append(jax.lax.pmax(differs.astype(jnp.int32), mesh.axis_names) > 0)
        return jnp.stack(found)

    mapped = jax.shard_map(differ, mesh=mesh, in_specs=tuple(specs), out_specs=PartitionSpec(), check_vma=False)
    return sharding.compile_on(mesh, lambda state: mapped(*jax.tree.leaves(state)))


def split_axes(spec: PartitionSpec) -> set[str]:
    """The axes of the mesh that split an array."""
    axes: set[str] = set()
    for entry in spec:
        axes |= set(entry) if isinstance(entry, tuple) else {entry} if entry else set()
    return axes


def describe(paths: list[str], step: int, since: int) -> str:
    """What to say of arrays whose copies differ at a step, and did not at step `since`."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return (
        f"at step {step} devices hold different copies of {', '.join(paths[:3])}{more}: one of them computes wrongly;"
        f" what was saved after step {since} is put aside, and the same command goes on from before it"
    )


def names_of(state: Any, differ: Any) -> list[str]:
    """The paths of the arrays whose copies differ, by what a check found."""
    paths = [sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    return [path for path, differs in zip(paths, differ, strict=True) if differs]
