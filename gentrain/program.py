"""What a config compiles to: its objective's update on a mesh, and the shapes and places of what goes through it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import plugins, sharding, update
from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.objectives.base import Objective
from gentrain.update import TrainState

# Parameters are drawn once. At its full effort the compiler for CPUs takes longer for that than for a step, and the
# numbers are the same, drawn as fast.
DRAWN_ONCE = {"xla_backend_optimization_level": 1}


class Program(NamedTuple):
    """What is compiled, and the shapes and places of what goes in and out of it; needs no data."""

    mesh: Mesh
    objective: Objective
    init: Callable  # () -> TrainState, from the seed
    update: Callable  # (state, batch) -> (state, sums); the state that goes in is donated
    state: TrainState  # of jax.ShapeDtypeStruct with shardings
    batch: dict[str, jax.ShapeDtypeStruct]  # with shardings


def build(config: ConfigDict, spec: Spec, mesh: Mesh | None = None) -> Program:
    """Objective, update and shardings for data of this spec. mesh: by default that of all devices. Nothing is computed
    yet.

    Raises ConfigError for a mesh.sequence that the model cannot use, or that does not divide the length.
    """
    size, rules = config.data.batch_size, config.mesh.rules
    mesh = mesh or sharding.make_mesh(config.mesh, size, config.training.microbatches)
    objective = plugins.load("objectives", config.objective.name).build(config, spec)
    parts = mesh.shape["sequence"]
    if parts > 1 and not getattr(objective.model, "parallel", False):
        raise ConfigError(
            f"mesh.sequence={parts}: model.name={config.model.name!r} has no positions side by side; set 1"
        )
    if parts > 1 and spec.length % parts:
        raise ConfigError(f"mesh.sequence={parts} does not divide data.length={spec.length}")
    init, step = update.build(config, objective, mesh)
    rows = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
        for name, (shape, dtype) in spec.batch_shapes(size).items()
    }

    def init_from_seed() -> TrainState:
        return init({name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in batch.items()})

    with sharding.inside(mesh):
        state = sharding.shard(jax.eval_shape(init_from_seed), mesh, rules)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    # Without explicit shardings of the optimiser state the second step would compile again.
    outputs = (shardings, sharding.replicated(mesh))
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return Program(
        mesh,
        objective,
        init=sharding.compile_on(mesh, init_from_seed, shardings, compiler_options=DRAWN_ONCE if on_cpu else None),
        update=sharding.compile_on(mesh, step, outputs, donate_argnums=0),
        state=state,
        batch=batch,
    )
