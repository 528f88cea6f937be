"""The mesh, and a NamedSharding for every array; nothing else knows how many devices there are."""

import contextlib
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from gentrain.errors import ConfigError

AXES = ("replica", "data", "fsdp", "sequence", "tensor")
BATCH_AXES = AXES[:3]  # all of them split the rows of a batch
NO_MESH = AbstractMesh((), ())
SMALL = 2**12  # arrays of fewer elements are copied to every device: gathering them would cost more than keeping them

Rules = Sequence[tuple[str, Sequence[str | None]]]


def mesh_sizes(config, devices: int) -> tuple[int, ...]:
    """The length of each axis, -1 filled in. Raises ConfigError where they do not make up the devices there are."""
    sizes = [config[axis] for axis in AXES]
    given = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and devices % given == 0:
        sizes[sizes.index(-1)] = devices // given
    if math.prod(sizes) != devices:
        axes = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        if -1 in sizes:
            needs = f"a multiple of {given} devices"
        else:
            needs = f"{given} devices (set one axis to -1 to use them all)"
        raise ConfigError(f"mesh ({axes}) asks for {needs} and there are {devices}")
    return tuple(sizes)


def make_mesh(config, batch_size: int, microbatches: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over the devices, by default all of all processes. Raises ConfigError where the batch does not divide
    over it."""
    devices = devices or jax.devices()
    sizes = mesh_sizes(config, len(devices))
    shards = math.prod(sizes[:3]) * microbatches
    if batch_size % shards:
        nearest = max(shards, round(batch_size / shards) * shards)
        raise ConfigError(
            f"data.batch_size={batch_size} does not divide over replica*data*fsdp={math.prod(sizes[:3])} devices"
            f" and {microbatches} microbatches; the nearest that does is {nearest}"
        )
    return Mesh(arrange(sizes, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def arrange(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices in the mesh's shape: neighbours in their network lie near one another, and slices (pods that a slower
    network joins) lie along the first axes that they divide.

    Raises ConfigError for slices that the axes do not divide into.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    slices_along: list[int] = []  # each axis
    for size in sizes:
        slices_along.append(math.gcd(size, slices // math.prod(slices_along)))
    if math.prod(slices_along) != slices:
        raise ConfigError(f"the devices are {slices} slices; set mesh.replica={slices}, or a multiple of it")
    slice_shape = [size // count for size, count in zip(sizes, slices_along, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(slice_shape, slices_along, devices, allow_split_physical_axes=True)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array with a row for each example."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


@contextlib.contextmanager
def inside(mesh: Mesh) -> Iterator[None]:
    """What is traced here is placed on this mesh by keep_rows and keep_whole. The innermost mesh counts."""
    # JAX refuses to enter a mesh from within one of another size; from within none it may enter any.
    with jax.sharding.use_abstract_mesh(NO_MESH), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def compile_on(mesh: Mesh, function: Callable, outputs: Any = None, **options: Any) -> Any:
    """The function, to be compiled for the mesh by jax.jit, with its options.

    outputs: the shardings of its results; by default every device has them whole. All that runs on a mesh is compiled
    through here, evaluators too.
    """

    @functools.wraps(function)
    def placed(*arguments):
        with inside(mesh):
            return function(*arguments)

    return jax.jit(placed, out_shardings=replicated(mesh) if outputs is None else outputs, **options)


def one_device() -> Mesh:
    """The mesh of this process's first device alone, for work outside a run: `with inside(one_device()): …`."""
    devices = np.asarray(jax.local_devices()[:1]).reshape((1,) * len(AXES))
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def by_own_rows(function: Callable, devices: int) -> Callable[..., Any]:
    """function(whole, rows), compiled for so many of this process's devices, each of which runs it for its own rows.

    The rows divide over the devices. What it returns has a row for each of a device's own, or one for each device. In a
    run of several processes each of them does all of it.
    """
    chosen = np.asarray(jax.local_devices()[:devices]).reshape(1, -1, 1, 1, 1)
    mesh = Mesh(chosen, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    rows = PartitionSpec(BATCH_AXES)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=False)
    compiled = compile_on(mesh, mapped, batch_sharding(mesh))

    @functools.wraps(function)
    def on_devices(whole, rows):
        with jax.sharding.use_abstract_mesh(NO_MESH):  # it is lowered outside of what it was traced in
            return compiled(whole, rows)

    return on_devices


def keep_rows(x: jax.Array) -> jax.Array:
    """x, whose rows stay on the devices that hold them; the compiler decides where its other dimensions go.

    Without it the compiler brings all rows to where the parts of a parameter are, rather than the parts to the rows.
    Positions, the second of three dimensions, stay where they are too, if mesh.sequence splits them.
    """
    free: list[Any] = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    if x.ndim == 3 and sequence_parts() > 1 and x.shape[1] % sequence_parts() == 0:
        free[0] = "sequence"
    return _constrain(x, PartitionSpec(BATCH_AXES, *free))


def by_sequence(
    function: Callable,
    queries: Sequence[jax.Array],
    others: Sequence[jax.Array],
    whole: jax.Array,
    kernel: bool = False,
) -> Any:
    """function(*queries, *others, whole), on each device for its own positions of the queries and all of the others.

    queries, others: (rows, positions) or (rows, positions, heads, …); whole: (rows,). The others are brought together
    once, and their gradients summed once, however often the function reads them; so left to the compiler they are not.
    Without mesh.sequence it is the function, unless that is a kernel, which the compiler cannot split over devices.
    """
    mesh, arrays = jax.sharding.get_abstract_mesh(), (*queries, *others)
    parts = sequence_parts()
    even = not any(x.shape[1] % parts for x in arrays) and len(whole) % batch_parts(mesh) == 0
    if holds_all() or not even or not (kernel or parts > 1):
        return function(*arrays, whole)
    split_heads = all(x.shape[2] % mesh.shape["tensor"] == 0 for x in arrays if x.ndim > 2)
    own = PartitionSpec(BATCH_AXES, "sequence", *(["tensor"] if split_heads else []))

    def of_own(queries, others, whole):
        return function(*queries, *map(all_positions, others), whole)

    def spec(x):
        return PartitionSpec(*own[: x.ndim])

    mapped = jax.shard_map(
        of_own,
        in_specs=(tuple(map(spec, queries)), tuple(map(spec, others)), spec(whole)),
        out_specs=own,
        axis_names=set(AXES) if kernel else {*BATCH_AXES, "sequence", *own[2:]},
        check_vma=False,
    )
    return mapped(tuple(queries), tuple(others), whole)


@jax.custom_vjp
def all_positions(x: jax.Array) -> jax.Array:
    """Every device's part of the positions, on each of them; gradients are summed in float32."""
    return jax.lax.all_gather(x, "sequence", axis=1, tiled=True)


def all_positions_backward(none: None, gradient: jax.Array) -> tuple[jax.Array]:
    summed = jax.lax.psum_scatter(gradient.astype(jnp.float32), "sequence", scatter_dimension=1, tiled=True)
    return (summed.astype(gradient.dtype),)


all_positions.defvjp(lambda x: (all_positions(x), None), all_positions_backward)


class Axes(NamedTuple):
    """The axes of a mesh over which sums are taken: of what rows add up to, and of what columns do."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]


def by_columns(function: Callable, rows: Any, columns: Any, outputs: Any = ()) -> Any:
    """function(rows, columns, axes) on each device, for its own rows and positions, and its own columns.

    rows: arrays (batch, length, size), which the function takes and returns flat, (batch * length, size); columns:
    arrays (…, vocab), split over mesh.tensor. It returns (rows, columns), these with the shapes of `outputs`. What an
    axis does not divide every device has whole. Sums over rows or columns are the function's to take, over the axes.
    """
    mesh = jax.sharding.get_abstract_mesh()

    def dividing(size, *axes):
        return () if holds_all() or size % math.prod(mesh.shape[axis] for axis in axes) else axes

    batch, length = jax.tree.leaves(rows)[0].shape[:2]
    places = dividing(batch, *BATCH_AXES), dividing(length, "sequence")
    split = dividing(jax.tree.leaves(columns)[0].shape[-1], "tensor")

    def of_device(rows, columns):
        own = jax.tree.leaves(rows)[0].shape[:2]
        flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), rows)
        rows, columns = function(flat, columns, Axes(sum(places, ()), split))
        return jax.tree.map(lambda x: x.reshape(*own, x.shape[-1]), rows), columns

    if holds_all():
        return of_device(rows, columns)

    def specs(columns):
        return jax.tree.map(lambda x: PartitionSpec(*(None,) * (x.ndim - 1), split), columns)

    by_rows = PartitionSpec(*places)
    mapped = jax.shard_map(
        of_device, in_specs=(by_rows, specs(columns)), out_specs=(by_rows, specs(outputs)), check_vma=False
    )
    return mapped(rows, columns)


def keep_whole(x: jax.Array) -> jax.Array:
    """x, all of it on every device while it is read: a table in which every row looks something up."""
    return _constrain(x, PartitionSpec())


def gather(tree: Any, rules: Rules, name: str) -> Any:
    """Parameters inside jit, each whole along the axes of the batch: for a loop that reads them all many times.

    Without it every turn of the loop would bring all of them to every device anew. Along tensor they stay as `shard`
    split them. name: the path of the tree, by which rules know it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if holds_all() or mesh.shape["fsdp"] == 1:
        return tree

    def place(path, leaf):
        spec, _ = _spec(f"{name}/{path_name(path)}", leaf.shape, mesh, rules)
        kept = PartitionSpec(*(None if axis in BATCH_AXES else axis for axis in spec))
        return jax.lax.with_sharding_constraint(leaf, kept)

    return jax.tree_util.tree_map_with_path(place, tree)


def platform() -> str:
    """What the devices are for which this is traced: 'cpu', 'gpu' or 'tpu'."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def sequence_parts() -> int:
    """How many parts the positions of a row are split into, where this is traced."""
    return 1 if holds_all() else jax.sharding.get_abstract_mesh().shape["sequence"]


def holds_all() -> bool:
    """Whether what is traced runs where all parameters are: on one device, or on each device's own rows."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size == 1 or AxisType.Manual in mesh.axis_types


def _constrain(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    """x placed by the spec in the mesh that the program is compiled for, if that mesh divides its rows.

    Raises RuntimeError outside a mesh: there the compiler would place x as it likes, unnoticed.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        raise RuntimeError("a model runs outside a mesh: compile it with sharding.compile_on, or trace it in inside()")
    if holds_all():
        return x
    parts = batch_parts(mesh) if spec else 1
    return x if x.shape[0] % parts else jax.lax.with_sharding_constraint(x, spec)


def batch_parts(mesh: Mesh | AbstractMesh) -> int:
    """How many parts the mesh splits the rows of a batch into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of the global batch that this process's devices hold, in order."""
    held = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    bounds = {index[0].indices(batch_size)[:2] for index in held if index is not None}
    return np.concatenate([np.arange(*bound) for bound in sorted(bounds)])


def put(batch: dict[str, np.ndarray], mesh: Mesh, batch_size: int) -> dict[str, jax.Array]:
    """Puts this process's rows on its devices, as its part of the global batch."""
    sharding = batch_sharding(mesh)
    # Without the global shape, processes that hold copies of the same rows would be taken to hold different ones.
    return {
        name: jax.make_array_from_process_local_data(sharding, rows, (batch_size, *rows.shape[1:]))
        for name, rows in batch.items()
    }


def round_up(mesh: Mesh, count: int) -> int:
    """The least number of rows that is no fewer than `count` and divides over the devices."""
    shards = batch_parts(mesh)
    return -(-count // shards) * shards


def spread(rows: Any, mesh: Mesh) -> Any:
    """The same arrays inside jit, with their rows over all devices: left to itself the compiler would let every device
    draw every sample."""
    return jax.lax.with_sharding_constraint(rows, batch_sharding(mesh))


def path_name(path: tuple[Any, ...]) -> str:
    """'params/generator/layers/query/kernel' of a tree path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _spec(
    name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: Rules
) -> tuple[PartitionSpec, str | None]:
    """How one array is split, and the pattern of the rule that it went by; None where it went by none."""
    for pattern, axes in rules:
        if re.search(pattern, name) and len(axes) == len(shape):
            divided = [
                axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=True)
            ]
            return PartitionSpec(*divided), pattern
    fsdp = mesh.shape["fsdp"]
    divisible = [size if size % fsdp == 0 else 0 for size in shape]
    if fsdp == 1 or math.prod(shape) < SMALL or not any(divisible):
        return PartitionSpec(), None
    split: list[str | None] = [None] * len(shape)
    split[divisible.index(max(divisible))] = "fsdp"
    return PartitionSpec(*split), None


def shard(tree: Any, mesh: Mesh, rules: Rules = ()) -> Any:
    """The same tree of jax.ShapeDtypeStruct, each with its sharding.

    An array goes by the first rule whose pattern is found in its path and that names as many dimensions as it has (a
    dimension that its axis does not divide stays whole); else its largest dimension that fsdp divides is split over
    fsdp; else it is copied. Optimiser moments lie under their parameter's path, so they go with it. Raises
    ConfigError for a rule that fits nothing and for a tensor axis that no rule uses.
    """
    used: set[str | None] = set()

    def place(path, leaf):
        spec, rule = _spec(path_name(path), leaf.shape, mesh, rules)
        used.add(rule)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    placed = jax.tree_util.tree_map_with_path(place, tree)
    for pattern, _ in rules:
        if pattern not in used:
            raise ConfigError(f"mesh.rules: {pattern!r} matches no parameter of this model")
    if mesh.shape["tensor"] > 1 and not any("tensor" in axes for _, axes in rules):
        raise ConfigError(
            f"mesh.tensor={mesh.shape['tensor']} but no rule of mesh.rules uses it; see TRANSFORMER_RULES"
        )
    return placed


def elements(tree: Any) -> int:
    """Numbers in all arrays of a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def bytes_per_device(tree: Any) -> int:
    """What one device holds of a tree that shard() has placed."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
