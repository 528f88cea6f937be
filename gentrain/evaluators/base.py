"""What an evaluator is, and the one way in which evaluators draw samples."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from gentrain import decode, sharding
from gentrain.datasets import store
from gentrain.datasets.spec import Images, Spec, Texts
from gentrain.metrics.intervals import Interval
from gentrain.models.base import DensityModel, Params, Sampler, SequenceModel
from gentrain.models.feeding import example_keys
from gentrain.sums import Metric

Measured = dict[str, float | Texts | Images]


class Evaluator(Protocol):
    """(parameters of each player, key) -> what was measured: numbers by name, and samples to look at."""

    def __call__(self, params: dict[str, Any], key: Array) -> Measured: ...


def make_draw(
    model: SequenceModel | DensityModel | Sampler,
    mesh: Mesh,
    length: int,
    *,
    end: int | None = None,
    law: Callable[..., Array] | None = None,
) -> Callable[..., Any]:
    """draw(params, key, rows (n,), context=None, setting=None) -> one example a row, on every device.

    All of its arguments are by position. An example depends on its own row and context alone. length: tokens of a
    sequence at most; end: as in decode.sample; law: as in decode.change_law, or law(setting, logits) where a setting is
    given, as a temperature. Models of points and images have none of these.
    """

    def draw(params, key, rows, context=None, setting=None):
        rows, context = sharding.spread((rows, context), mesh)
        keys = example_keys(key, rows)
        if not isinstance(model, SequenceModel):
            return model.sample(params, keys, context)
        token_law = law if law is None or setting is None else partial(law, setting)
        drawn_from = decode.change_law(model, token_law) if token_law else model
        return decode.sample(drawn_from, params, keys, length, end=end, context=context)

    return sharding.compile_on(mesh, draw)


def compile_here(function: Callable) -> Callable:
    """The function, compiled for one device of this process."""

    @wraps(function)
    def placed(*arguments):
        with sharding.inside(sharding.one_device()):
            return function(*arguments)

    return jax.jit(placed)


def sample_rows(mesh: Mesh, count: int) -> Array:
    """Rows 0, 1, …: the least number of them that is no fewer than `count` and divides over the devices."""
    return jnp.arange(sharding.round_up(mesh, count))


def obtain_params(key: Sequence[Any], init: Callable[..., Params], fit: Callable[[], Params]) -> Params:
    """The parameters of a network that evaluators measure with: found in the cache, or fitted and put there.

    key: what the network is called, and all that its parameters depend on.
    """
    structure = jax.tree.structure(jax.eval_shape(init, jax.random.key(0)))
    return jax.tree.unflatten(structure, obtain_arrays(key, lambda: jax.device_get(jax.tree.leaves(fit()))))


def obtain_arrays(key: Sequence[Any], make: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Arrays that are found in the cache, or made and put there. key: what they are, and all that they depend on."""
    file = f"{key[0]}.npz"
    folder = store.cached(list(key), lambda folder: np.savez(folder / file, *make()))
    with np.load(folder / file) as arrays:
        return [arrays[name] for name in arrays.files]


def decode_rows(spec: Spec, tokens: np.ndarray, mask: np.ndarray) -> list[Any]:
    """What people see of rows of tokens (n, length), without padding and end."""
    keep = mask if spec.end is None else mask & (tokens != spec.end)
    return [spec.decode(row[chosen]) for row, chosen in zip(tokens, keep, strict=True)]


def with_company(room: str, numbers: Mapping[str, Metric], real: str = "") -> dict[str, Metric]:
    """The declarations of room/…, of the ends of their intervals, and of their floors, those `real`, if any."""
    declared = {}
    for name, metric in numbers.items():
        low, high, floor = (f"{what}: {metric.meaning}" for what in ("low end, 95 %", "high end, 95 %", real))
        declared[f"{room}/{name}"] = metric
        declared[f"{room}/{name}_low"] = Metric(metric.unit, None, low, restates=True)
        declared[f"{room}/{name}_high"] = Metric(metric.unit, None, high, restates=True)
        if real:
            declared[f"{room}/{name}_floor"] = Metric(metric.unit, None, floor, level=True)
    return declared


def name_values(
    room: str, found: Mapping[str, Interval], floors: Mapping[str, float] = MappingProxyType({})
) -> dict[str, float]:
    """What was found, by the names of `with_company`."""
    values = {}
    for name, interval in found.items():
        values[f"{room}/{name}"] = float(interval.value)
        values[f"{room}/{name}_low"] = float(interval.low)
        values[f"{room}/{name}_high"] = float(interval.high)
    return values | {f"{room}/{name}_floor": floor for name, floor in floors.items()}
