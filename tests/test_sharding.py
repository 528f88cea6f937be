"""Where arrays go, decided before anything is compiled."""

import itertools
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs.base import TRANSFORMER_RULES
from gentrain import sharding
from gentrain.errors import ConfigError


def mesh_config(**sizes):
    return {**dict.fromkeys(sharding.AXES, 1), **sizes}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (dict(data=-1), (1, 8, 1, 1, 1)),
        (dict(data=2, fsdp=-1), (1, 2, 4, 1, 1)),
        (dict(replica=2, data=2, tensor=2), (2, 2, 1, 1, 2)),
        (dict(data=2, sequence=-1), (1, 2, 1, 4, 1)),
    ],
)
def test_axes_are_filled_in(sizes, expected):
    assert sharding.mesh_sizes(mesh_config(**sizes), 8) == expected


@pytest.mark.parametrize(
    "sizes", [dict(data=3), dict(data=3, fsdp=-1), dict(data=4), dict(data=16), dict(replica=-1, data=16)]
)
def test_meshes_that_the_devices_do_not_make_up_are_refused(sizes):
    with pytest.raises(ConfigError, match="there are 8"):
        sharding.mesh_sizes(mesh_config(**sizes), 8)


def test_a_batch_that_does_not_divide_names_one_that_does():
    with pytest.raises(ConfigError, match=r"batch_size=30 .*nearest that does is 32"):
        sharding.make_mesh(mesh_config(data=8), 30)
    with pytest.raises(ConfigError, match="nearest that does is 16"):
        sharding.make_mesh(mesh_config(data=8), 8, microbatches=2)


def test_parameters_split_over_fsdp_by_their_largest_dimension_and_moments_with_them():
    mesh = sharding.make_mesh(mesh_config(data=2, fsdp=4), 8)
    shapes = {"kernel": (64, 256), "odd": (63, 255), "wide": (6, 128, 64), "bias": (256,)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    placed = sharding.shard({"params": params, "mu": params}, mesh)
    for tree in placed.values():
        assert {name: leaf.sharding.spec for name, leaf in tree.items()} == {
            **{"kernel": P(None, "fsdp"), "odd": P(), "wide": P(None, "fsdp", None), "bias": P()}
        }
    total = 4 * (64 * 256 / 4 + 63 * 255 + 6 * 128 * 64 / 4 + 256)
    assert sharding.bytes_per_device(placed["params"]) == total


def test_rules_come_first_leave_whole_what_does_not_divide_and_must_fit_something():
    mesh = sharding.make_mesh(mesh_config(data=2, fsdp=2, tensor=2), 8)
    leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    tree = {
        "layers": {
            "query": {"kernel": leaf(2, 64, 64)},
            "out": {"kernel": leaf(2, 64, 64)},
            "up": {"kernel": leaf(2, 64, 63)},
        }
    }
    tree["embed"] = leaf(28, 64)
    placed = sharding.shard(tree, mesh, TRANSFORMER_RULES)
    assert placed["layers"]["query"]["kernel"].sharding.spec == P(None, "fsdp", "tensor")
    assert placed["layers"]["out"]["kernel"].sharding.spec == P(None, "tensor", "fsdp")
    assert placed["layers"]["up"]["kernel"].sharding.spec == P(None, "fsdp", None)
    assert placed["embed"].sharding.spec == P("tensor", "fsdp")
    with pytest.raises(ConfigError, match="'nowhere' matches no parameter"):
        sharding.shard(tree, mesh, (*TRANSFORMER_RULES, ("nowhere", ("fsdp",))))
    with pytest.raises(ConfigError, match="no rule"):
        sharding.shard(tree, mesh)


@dataclass(frozen=True)
class FakeDevice:
    """As much of a device of a pod as its place in a mesh depends on."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"


def in_slices(*counts: int) -> list[FakeDevice]:
    """Devices by the slice they are in: so many in slice 0, so many in slice 1, …"""
    indices = [index for index, count in enumerate(counts) for _ in range(count)]
    return [FakeDevice(number, index) for number, index in enumerate(indices)]


@pytest.mark.parametrize(
    ("sizes", "within"),
    [
        ((4, 1, 2, 1), (1, 1, 2, 1)),  # all along replica
        ((2, 2, 2, 1), (1, 1, 2, 1)),  # along replica and data
        ((1, 4, 1, 2), (1, 1, 1, 2)),
        ((2, 1, 4, 1), (1, 1, 2, 1)),  # along replica and a part of fsdp
        ((1, 1, 2, 4), (1, 1, 1, 2)),  # along fsdp and a part of tensor
    ],
)
def test_slices_lie_along_the_first_axes_that_they_divide(sizes, within):
    mesh = sharding.arrange(sizes, in_slices(2, 2, 2, 2))
    assert mesh.shape == sizes and len({device.id for device in mesh.flat}) == 8
    slice_of = np.vectorize(lambda device: device.slice_index)(mesh)
    blocks = []  # each slice is a block of the shape `within`
    for corner in itertools.product(*(range(0, size, step) for size, step in zip(sizes, within, strict=True))):
        block = slice_of[tuple(slice(start, start + size) for start, size in zip(corner, within, strict=True))]
        blocks.append(set(block.flat))
    assert all(len(block) == 1 for block in blocks) and set.union(*blocks) == {0, 1, 2, 3}


def test_slices_that_the_axes_do_not_divide_into_are_refused():
    with pytest.raises(ConfigError, match=r"the devices are 4 slices; set mesh\.replica=4, or a multiple of it"):
        sharding.arrange((1, 6, 1, 1), in_slices(3, 1, 1, 1))


def test_one_slice_is_arranged_by_its_own_network(monkeypatch):
    asked = []
    monkeypatch.setattr(sharding.mesh_utils, "create_device_mesh", lambda sizes, devices, **_: asked.append(sizes))
    sharding.arrange((1, 2, 4, 1), in_slices(8))
    assert asked == [(1, 2, 4, 1)]


def test_the_innermost_mesh_counts():
    mesh = sharding.make_mesh(mesh_config(data=8), 8)
    split = lambda x: str(jax.jit(sharding.keep_rows).trace(x).jaxpr)
    x = jax.ShapeDtypeStruct((8, 3), jnp.float32)
    assert "sharding_constraint" not in split(x)  # one device, in all tests
    with sharding.inside(mesh):
        assert "sharding_constraint" in split(x)
        with sharding.inside(sharding.one_device()):
            assert "sharding_constraint" not in split(x)
        assert "sharding_constraint" in split(x)


def test_a_model_outside_a_mesh_is_refused(no_mesh):
    for constrain in (sharding.keep_rows, sharding.keep_whole):
        with pytest.raises(RuntimeError, match="outside a mesh"):
            constrain(jnp.zeros((8, 3)))


def test_what_is_compiled_for_a_mesh_is_on_every_device_whole_unless_it_is_said_where():
    mesh = sharding.make_mesh(mesh_config(data=8), 8)
    rows = sharding.put({"x": np.arange(8.0)}, mesh, 8)["x"]
    total = sharding.compile_on(mesh, lambda x: x.sum())(rows)
    assert total == 28 and total.sharding.is_fully_replicated and len(total.addressable_shards) == 8
    doubled = sharding.compile_on(mesh, lambda x: 2 * x, sharding.batch_sharding(mesh))(rows)
    assert doubled.sharding.spec == P(sharding.BATCH_AXES)


def test_rows_arrive_where_they_belong():
    mesh = sharding.make_mesh(mesh_config(replica=2, data=2, fsdp=2), 16)
    assert np.array_equal(sharding.local_rows(mesh, 16), np.arange(16))
    rows = np.arange(16 * 3).reshape(16, 3)
    placed = sharding.put({"rows": rows}, mesh, 16)["rows"]
    assert np.array_equal(placed, rows) and len(placed.addressable_shards) == 8
    assert all(shard.data.shape == (2, 3) for shard in placed.addressable_shards)


def test_as_many_rows_are_drawn_as_are_asked_for_or_the_next_number_that_divides():
    mesh = sharding.make_mesh(mesh_config(replica=2, fsdp=2, tensor=2), 16)  # four parts of rows
    assert [sharding.round_up(mesh, count) for count in (1, 4, 5, 16, 17)] == [4, 4, 8, 16, 20]


def test_the_shape_of_the_whole_batch_is_told_where_processes_hold_copies(monkeypatch):
    mesh = sharding.make_mesh(mesh_config(tensor=8), 16)
    monkeypatch.setattr(jax, "make_array_from_process_local_data", lambda sharding, rows, shape=None: shape)
    assert sharding.put({"rows": np.zeros((16, 3))}, mesh, 16) == {"rows": (16, 3)}


def test_a_process_reads_the_rows_of_its_own_devices_even_where_they_are_copies(monkeypatch):
    """Two devices a process, mesh data=2 x tensor=4: processes 0 and 1 hold the same half of the batch."""
    for owned, expected in (((0, 1), range(8)), ((2, 3), range(8)), ((6, 7), range(8, 16))):
        held = {number: (slice(0, 8) if number < 4 else slice(8, 16),) for number in owned}
        fake = SimpleNamespace(addressable_devices_indices_map=lambda shape, held=held: held)
        monkeypatch.setattr(sharding, "batch_sharding", lambda mesh, fake=fake: fake)
        assert np.array_equal(sharding.local_rows(None, 16), expected)
