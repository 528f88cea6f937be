"""Evaluators: what is measured, one file each, found by its name.

An evaluator file has `build(config, model, data, mesh) -> Evaluator`.
"""

from typing import Any, Protocol

from gentrain.metrics import Images, Texts


class Evaluator(Protocol):
    """(parameters of each player, key) -> what was measured: numbers by name, and samples to look at."""

    def __call__(self, params: dict[str, Any], key) -> dict[str, float | Texts | Images]: ...
