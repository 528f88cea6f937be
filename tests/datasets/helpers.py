"""What several tests of data need."""

from itertools import pairwise
from typing import Any

from gentrain.datasets.build import Data
from gentrain.datasets.spec import Spec


def texts(data: Data, split: str) -> list[str]:
    """The documents of a split, in order, without their ends."""
    tokens, offsets = data.split(split).documents
    return [data.spec.decode(tokens[start : stop - 1]) for start, stop in pairwise(offsets)]


def without_functions(spec: Spec) -> tuple[type, dict[str, Any]]:
    """What two specs can be compared by: their kind and all their fields that are no functions."""
    return type(spec), {name: value for name, value in vars(spec).items() if not callable(value)}
