"""Parameters of published models, read tensor by tensor into the shards of a run."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from gentrain import plugins, sharding
from gentrain.errors import CheckpointError, ConfigError
from gentrain.options.tree import plugin_options
from gentrain.published import Leaf, Published, Stored

Index = tuple[slice, ...]


def restore(published: Published, network: ConfigDict, wanted: Any) -> Any:
    """The parameters of a network, each process reading what its own devices hold and nothing else.

    network: its section of the config; wanted: the tree of jax.ShapeDtypeStruct with shardings. Beside the shards there
    is one tensor at a time in memory. Raises ConfigError for a network of another shape, CheckpointError for a tensor
    that lacks, is of another shape or has no place.
    """
    model = plugins.companion("models", network.name, "published")
    if model is None:
        raise ConfigError(f"{published.where}: no published model is a model.name={network.name!r}")
    if not any(name.startswith(model.PREFIX) for name in published.tensors):
        published = published._replace(
            tensors={f"{model.PREFIX}{name}": one for name, one in published.tensors.items()}
        )
    leaves = {leaf.path: leaf for leaf in model.leaves(plugin_options("models", network.name).of(network))}
    paths = {sharding.path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(wanted)}
    if other := sorted(leaves.keys() ^ paths.keys()):
        raise ConfigError(f"{published.where} does not fit this network: {other[0]} is in one of them alone")
    check_names(published, list(leaves.values()), network.layers, model.UNUSED)
    params = {path: read_leaf(published, leaf, paths[path]) for path, leaf in leaves.items()}
    structure = jax.tree.structure(wanted)
    return jax.tree.unflatten(structure, [params[path] for path in paths])


def check_names(published: Published, leaves: Sequence[Leaf], layers: int, unused: Sequence[str]) -> None:
    """Raises CheckpointError for a tensor that lacks, or that would not be read. unused: ends of names that may be."""
    wanted = {leaf.tensor.format(layer) for leaf in leaves for layer in range(layers)}
    if missing := sorted(wanted - published.tensors.keys()):
        raise CheckpointError(f"{published.where} has no tensor {missing[0]}")
    left = sorted(name for name in published.tensors.keys() - wanted if not name.endswith(tuple(unused)))
    if left:
        raise CheckpointError(f"{published.where} has a tensor {left[0]}, and its family has none")


def read_leaf(published: Published, leaf: Leaf, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    """One parameter, on the devices that shall hold it."""
    convert = functools.partial(as_wanted, transposed=leaf.transposed, dtype=wanted.dtype)
    axes = [*wanted.sharding.spec, *[None] * (len(wanted.shape) - len(wanted.sharding.spec))]
    if "{}" not in leaf.tensor:
        one = put(published, leaf, wanted.shape, axes, wanted.sharding.mesh)
        return jax.jit(convert, out_shardings=wanted.sharding)(one)

    def write(stacked, one, layer):
        return jax.lax.dynamic_update_index_in_dim(stacked, convert(one), layer, 0)

    begin = jax.jit(lambda: jnp.zeros(wanted.shape, wanted.dtype), out_shardings=wanted.sharding)
    write_layer = jax.jit(write, out_shardings=wanted.sharding, donate_argnums=0)
    stacked = begin()
    for layer in range(wanted.shape[0]):
        of_layer = leaf._replace(tensor=leaf.tensor.format(layer))
        one = put(published, of_layer, wanted.shape[1:], axes[1:], wanted.sharding.mesh)
        stacked = write_layer(stacked, one, layer)
        stacked.block_until_ready()  # or the tensors of all layers would be in memory at once
    return stacked


def as_wanted(one: jax.Array, transposed: bool, dtype: Any) -> jax.Array:
    """A tensor as the parameter holds it."""
    return (one.T if transposed else one).astype(dtype)


def put(published: Published, leaf: Leaf, shape: tuple[int, ...], axes: list[Any], mesh: Any) -> jax.Array:
    """A tensor as it is stored, split as the parameter shall be; shape, axes: the parameter's.

    Raises CheckpointError for one of another shape, ConfigError for a model without a token to begin with.
    """
    stored = published.tensors[leaf.tensor]
    if leaf.begin:
        stored = row_of(stored, begin_of(published))
    if leaf.transposed:
        shape, axes = shape[::-1], axes[::-1]
    if stored.shape != shape:
        raise CheckpointError(f"{published.where}: {leaf.tensor} is {stored.shape}, and {shape} was expected")

    read = functools.cache(lambda *bounds: np.asarray(stored.read(tuple(slice(*bound) for bound in bounds))))

    def of_shard(index: Index | None) -> np.ndarray:
        assert index is not None, "this is a shard of ours"
        return read(*(part.indices(size)[:2] for part, size in zip(index, shape, strict=True)))

    return jax.make_array_from_callback(shape, NamedSharding(mesh, PartitionSpec(*axes)), of_shard)


def begin_of(published: Published) -> int:
    """The token that a sequence begins with: its begin, or else its end, after which the next text begins."""
    token = published.end if published.begin is None else published.begin
    if token is None:
        raise ConfigError(f"{published.where} names no token that a text begins or ends with")
    return token


def row_of(stored: Stored, row: int) -> Stored:
    """One row of a matrix, as a tensor."""
    return Stored(stored.shape[1:], stored.dtype, lambda index: stored.read((slice(row, row + 1), *index))[0])


def digest(published: Published) -> str:
    """Of the names, shapes and first rows of all tensors: it tells other weights, without reading all of them."""
    found = hashlib.sha256()
    for name, stored in sorted(published.tensors.items()):
        first = stored.read((slice(0, 1), *(slice(0, size) for size in stored.shape[1:])))
        found.update(f"{name} {stored.shape} {stored.dtype}".encode() + np.ascontiguousarray(first).tobytes())
    return found.hexdigest()
