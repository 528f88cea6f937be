"""Where arrays go, decided before anything is compiled."""

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
    return {"replica": 1, "data": 1, "fsdp": 1, "tensor": 1, **sizes}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (dict(data=-1), (1, 8, 1, 1)),
        (dict(data=2, fsdp=-1), (1, 2, 4, 1)),
        (dict(replica=2, data=2, tensor=2), (2, 2, 1, 2)),
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


def test_rows_arrive_where_they_belong():
    mesh = sharding.make_mesh(mesh_config(replica=2, data=2, fsdp=2), 16)
    assert np.array_equal(sharding.local_rows(mesh, 16), np.arange(16))
    rows = np.arange(16 * 3).reshape(16, 3)
    placed = sharding.put({"rows": rows}, mesh, 16)["rows"]
    assert np.array_equal(placed, rows) and len(placed.addressable_shards) == 8
    assert all(shard.data.shape == (2, 3) for shard in placed.addressable_shards)


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
