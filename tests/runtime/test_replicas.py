"""A copy of an array that differs from the others by one bit is found, on any mesh, and nothing else is."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gentrain import program, sharding
from gentrain.runtime import replicas

pytestmark = pytest.mark.usefixtures("no_mesh")


def flip_one_bit(array: jax.Array, device: int) -> jax.Array:
    """The array with one bit of the part that one device holds flipped."""
    parts = [np.array(shard.data) for shard in array.addressable_shards]
    raw = parts[device].reshape(-1).view(np.uint8)
    raw[np.random.default_rng().integers(raw.size)] ^= 1 << 3
    placed = [jax.device_put(part, shard.device) for part, shard in zip(parts, array.addressable_shards, strict=True)]
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, placed)


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 2, "fsdp": 4}, {"replica": 2, "data": 2, "fsdp": 2}])
def test_one_flipped_bit_of_one_copy_is_found_and_named(config, spec, monkeypatch, axes):
    monkeypatch.setattr(sharding, "SMALL", 64)  # so that fsdp splits some arrays, and copies others
    config.mesh.update({"data": 1} | axes)
    built = program.build(config, spec)
    state = built.init()
    check = replicas.make_check(built.state, built.mesh)
    assert replicas.names_of(state, jax.device_get(check(state))) == []
    leaves, tree = jax.tree.flatten(state)
    paths = [sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    copied = [n for n, leaf in enumerate(leaves) if len(leaf.addressable_shards) > len(set(map(str, shards(leaf))))]
    assert any("params" in paths[n] for n in copied)
    for number in np.random.default_rng().permutation(copied)[:4]:
        spoiled = list(leaves)
        spoiled[number] = flip_one_bit(leaves[number], 5)
        found = check(jax.tree.unflatten(tree, spoiled))
        assert replicas.names_of(state, jax.device_get(found)) == [paths[number]]


def shards(leaf: jax.Array) -> list[tuple]:
    return [shard.index for shard in leaf.addressable_shards]


def test_parts_of_a_split_array_are_no_copies():
    mesh = sharding.make_mesh(type("Axes", (dict,), {})(replica=1, data=1, fsdp=8, sequence=1, tensor=1), 8)
    split = jax.device_put(np.arange(16.0, dtype=np.float32), NamedSharding(mesh, PartitionSpec("fsdp")))
    assert replicas.names_of({"x": split}, replicas.make_check({"x": split}, mesh)({"x": split})) == []
    assert replicas.split_axes(PartitionSpec(("data", "fsdp"), None, "tensor")) == {"data", "fsdp", "tensor"}
