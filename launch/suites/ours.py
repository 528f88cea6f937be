"""gentrain's side of a work."""

import time
from collections.abc import Callable
from typing import Any

from launch.suites.works import BEAM, Prepared, Work


def prepare(work: Work) -> Prepared:
    """The work compiled, with what tracing and compiling took and what the compiler says of it."""
    import jax
    import numpy as np

    from configs import base
    from gentrain import program, sharding

    shape, config = work.shape, base.get_config()
    config.update_from_flattened_dict({**shape.config(), **work.options})
    images, spec = work.does == "train_images", spec_of(work)
    built = program.build(config, spec)
    state = built.init()
    if work.does in ("sample", "search"):
        return decoding(built, state.params["generator"], work)
    rows = (shape.batch, spec.length)
    tokens = np.random.default_rng(0).integers(0, spec.vocab, rows, np.int32)
    data = {"tokens": tokens, "mask": np.ones(rows, bool), "row": np.arange(shape.batch, dtype=np.int32)}
    batch = sharding.put(data, built.mesh, shape.batch)
    step, numbers = compile_ahead(built.update, state, batch)
    parameters = sharding.elements(state.params if images else state.params["generator"])

    def train() -> None:
        nonlocal state
        state, sums = step(state, batch)
        jax.block_until_ready((state, sums))

    return Prepared(train, {"parameters": parameters, **numbers})


def spec_of(work: Work) -> Any:
    """What the work's data are."""
    from gentrain.datasets.spec import ImageSpec, TextSpec

    shape = work.shape
    if work.does == "train_images":
        return ImageSpec(256, shape.side**2, shape=(shape.side, shape.side, 1))
    return TextSpec(shape.vocab, shape.length)


def decoding(built: Any, params: Any, work: Work) -> Prepared:
    """Drawing a batch of sequences, or searching for likely ones."""
    import jax
    import jax.numpy as jnp

    from gentrain import decode, sharding

    model, shape = built.objective.model, work.shape
    keys = jax.random.split(jax.random.key(0), shape.batch)

    def draw(params):
        if work.does == "search":
            return decode.beam_search(model, params, jnp.zeros((shape.batch, 0)), shape.length, BEAM).tokens
        return decode.sample(model, params, keys, shape.length).tokens

    drawn, numbers = compile_ahead(sharding.compile_on(built.mesh, draw), params)
    numbers["parameters"] = sharding.elements(params)
    return Prepared(lambda: jax.block_until_ready(drawn(params)), numbers)


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
