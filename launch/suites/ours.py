"""gentrain's side of a work."""

import time
from collections.abc import Callable
from typing import Any

from launch.suites.works import Prepared, Work


def prepare(work: Work) -> Prepared:
    """The work compiled, with what tracing and compiling took and what the compiler says of it."""
    import jax
    import numpy as np

    from configs import base
    from gentrain import decode, program, sharding
    from gentrain.datasets.spec import TextSpec

    shape, config = work.shape, base.get_config()
    config.update_from_flattened_dict({**shape.config(), **work.options})
    built = program.build(config, TextSpec(shape.vocab, shape.length, None, str))
    state = built.init()
    parameters = sharding.elements(state.params["generator"])
    if work.does == "train":
        tokens = np.random.default_rng(0).integers(0, shape.vocab, (shape.batch, shape.length), np.int32)
        rows = {"tokens": tokens, "mask": np.ones(tokens.shape, bool), "row": np.arange(shape.batch, dtype=np.int32)}
        batch = sharding.put(rows, built.mesh, shape.batch)
        step, numbers = compile_ahead(built.update, state, batch)

        def train() -> None:
            nonlocal state
            state, sums = step(state, batch)
            jax.block_until_ready((state, sums))

        return Prepared(train, {"parameters": parameters, **numbers})
    model: Any = built.objective.model
    keys = jax.random.split(jax.random.key(0), shape.batch)

    def draw(params):
        return decode.sample(model, params, keys, shape.length).tokens

    drawn, numbers = compile_ahead(sharding.compile_on(built.mesh, draw), state.params["generator"])
    return Prepared(
        lambda: jax.block_until_ready(drawn(state.params["generator"])), {"parameters": parameters, **numbers}
    )


def compile_ahead(function: Any, *arguments: Any) -> tuple[Callable, dict[str, float]]:
    """The compiled function, and: seconds to trace and lower it, and to compile it; its temporary memory."""
    began = time.perf_counter()
    lowered = function.lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()
    numbers = {"trace_s": traced - began, "compile_s": time.perf_counter() - traced}
    numbers["temporary_mb"] = compiled.memory_analysis().temp_size_in_bytes / 1e6
    return compiled, numbers


def prepare_matmul(size: int = 2048) -> Prepared:
    """One matmul of squares, for the rate that a core reaches at best."""
    import jax
    import jax.numpy as jnp

    square = jnp.ones((size, size))
    multiply = jax.jit(jnp.matmul)
    return Prepared(lambda: jax.block_until_ready(multiply(square, square)), {"gflop": 2e-9 * size**3})
