"""What several tests of data need."""

import dataclasses
from itertools import pairwise

from gentrain.datasets.build import Data
from gentrain.datasets.spec import Spec


def texts(data: Data, split: str) -> list[str]:
    """The documents of a split, in order, without their ends."""
    tokens, offsets = data.split(split).documents
    return [data.spec.decode(tokens[start : stop - 1]) for start, stop in pairwise(offsets)]


def unnamed(spec: Spec) -> Spec:
    """The spec without the names of its contexts."""
    return dataclasses.replace(spec, context_names=())
