"""Collectives of programs whose traffic is known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gentrain import sharding
from launch import hlo

MESH = {"replica": 1, "data": 2, "fsdp": 4, "tensor": 1}
pytestmark = pytest.mark.usefixtures("no_mesh")


def compiled(function, *shapes) -> str:
    """The HLO of a function of arrays whose rows are split over all eight devices."""
    mesh = jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(jax.sharding.AxisType.Auto,) * 4)
    rows = PartitionSpec(sharding.BATCH_AXES)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding.batch_sharding(mesh)) for shape in shapes]
    return jax.jit(mapped).lower(*arrays).compile().as_text()


def test_a_sum_in_a_loop_in_a_loop_counts_as_often_as_it_runs():
    def function(x):  # (8, 16) of float32 on each device: 512 bytes
        once = lambda y, _: (jax.lax.psum(jnp.sin(y), "fsdp"), None)
        inner = lambda y, _: (jax.lax.psum(jax.lax.scan(once, y, length=3)[0], ("data", "fsdp")), None)
        return jax.lax.scan(inner, x, length=5)[0]

    rows, unknown = hlo.traffic(compiled(function, (64, 16)), MESH)
    assert unknown == 0
    assert rows == [
        ("all-reduce", "data+fsdp", 5, 5 * 2 * 512 * 7 // 8),
        ("all-reduce", "fsdp", 15, 15 * 2 * 512 * 3 // 4),
    ]


def test_every_kind_along_its_axis():
    def function(x):  # (8, 16): 512 bytes
        gathered = jax.lax.all_gather(x, "data")  # 1024 bytes, half of them from here
        scattered = jax.lax.psum_scatter(gathered.reshape(16, 16), "fsdp", tiled=True)  # 4 parts of 256 bytes
        turned = jax.lax.all_to_all(x.reshape(4, 2, 16), "fsdp", 0, 0)  # 512 bytes, a quarter of which stays
        passed = jax.lax.ppermute(x, "data", [(0, 1), (1, 0)])
        return scattered.sum() + turned.reshape(8, 16) + passed

    rows, unknown = hlo.traffic(compiled(function, (64, 16)), MESH)
    assert unknown == 0
    assert rows == [
        ("all-gather", "data", 1, 512),
        ("reduce-scatter", "fsdp", 1, 3 * 256),
        ("all-to-all", "fsdp", 1, 384),
        ("collective-permute", "data", 1, 512),
    ]


def test_a_loop_that_does_not_tell_how_often_it_runs_is_counted_once_and_said():
    def function(x):
        return jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: jax.lax.psum(y, "data") + 1, x)

    rows, unknown = hlo.traffic(compiled(function, (64, 16)), MESH)
    assert unknown == 1 and rows == [("all-reduce", "data", 1, 512)]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("source_target_pairs={{0,4},{4,0}}", [[0, 4], [4, 0]]),
        ("replica_groups=[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'c'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=(7,6,5,4,3,2,1,0) {'b'}", [[7, 6], [5, 4], [3, 2], [1, 0]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b':(2)2}", [[0, 1, 4, 5], [2, 3, 6, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("replica_groups={}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_every_way_of_writing_groups(form, expected):
    np.testing.assert_array_equal(hlo.groups(f"channel_id=1, {form}, use_global_device_ids=true", 8), expected)


@pytest.mark.parametrize(
    ("operation", "sent"),
    [
        ("(f32[4]{0}, f32[16]{0:T(8,128)}) all-gather-start(%x)", 64 * 3 // 4),
        ("((f32[4], bf16[4]), (f32[16], bf16[16])) all-gather-start(%x, %y)", (64 + 32) * 3 // 4),
        ("f32[16]{0} all-reduce-start(%x)", 2 * 64 * 3 // 4),
        ("(f32[16], /*index=5*/pred[16]) all-reduce(%x, %y)", 2 * 80 * 3 // 4),
        ("(s8[16], s8[16], u32[], u32[]) collective-permute-start(%x)", 16),
        ("f8e4m3fn[16] all-to-all(%x)", 12),
    ],
)
def test_bytes_of_operations_that_run_beside_others_and_of_several_arrays(operation, sent):
    text = f"ENTRY %main (x: f32[4]) -> f32[16] {{\n  %y = {operation}, replica_groups=[2,4]<=[8]\n}}\n"
    ((_, axes, calls, bytes_sent),) = hlo.traffic(text, MESH)[0]
    assert (axes, calls, bytes_sent) == ("fsdp", 1, sent)
