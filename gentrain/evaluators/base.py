"""What an evaluator is, and the one way in which evaluators draw samples."""

from collections.abc import Callable
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from gentrain import decode, sharding
from gentrain.datasets.spec import Images, Texts
from gentrain.models.feeding import example_keys


class Evaluator(Protocol):
    """(parameters of each player, key) -> what was measured: numbers by name, and samples to look at."""

    def __call__(self, params: dict[str, Any], key: Array) -> dict[str, float | Texts | Images]: ...


def make_draw(
    model: Any, mesh: Mesh, length: int, *, end: int | None = None, law: Callable = decode.filtered
) -> Callable[..., Any]:
    """draw(params, key, rows (n,), context=None, temperature=None) -> one example a row, on every device.

    An example depends on its own row and context alone. end, law: as in decode.sample; a temperature, if given, takes
    the law's place. Models of points and images have neither.
    """

    def draw(params, key, rows, context=None, temperature=None):
        rows, context = sharding.spread((rows, context), mesh)
        options: dict[str, Any] = {
            "end": end,
            "law": law if temperature is None else lambda logits: logits / temperature,
        }
        return decode.draw_examples(model, params, example_keys(key, rows), length, context, **options)

    return sharding.compile_on(mesh, draw)


def sample_rows(mesh: Mesh, count: int) -> Array:
    """Rows 0, 1, …: the least number of them that is no fewer than `count` and divides over the devices."""
    return jnp.arange(sharding.whole(mesh, count))
