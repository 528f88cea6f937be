"""Published models, as the files that they come in: config, tensors and tokenizer under the names that all the world
uses.

Nothing here imports JAX. What of a published model is which parameter of a gentrain model, that model says, in
models/<name>_published.py: MODEL_TYPES, the `model_type` of each config.json that it can be; options_of(said,
adds_begin), its options as the config.json says them; leaves(options), where each parameter lies; UNUSED, ends of the
names of tensors that need not be read; PREFIX, which names may lack; to_publish(options, params, begin), the same model
in a form that has a place in a family; and config_of(options), its config.json.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Stored(NamedTuple):
    """A tensor in a file. read(index) -> the part of it that a tuple of slices, one a dimension, says."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[tuple[slice, ...]], np.ndarray]


class Leaf(NamedTuple):
    """Where a parameter lies in a published model.

    path: of the parameter, as 'layers/query/kernel'. tensor: the published name; with {} in it, one tensor for each
    layer, which the parameter holds stacked. transposed: whether the published one has its two dimensions in the other
    order. begin: whether it is one row alone, that of the token which begins a sequence; written: whether that row is
    written, too, where the model goes out.
    """

    path: str
    tensor: str
    transposed: bool = False
    begin: bool = False
    written: bool = True


class Published(NamedTuple):
    """A published model. where: what a person calls it. config: its config.json. tensors: by name.

    tokenizer: its tokenizer.json, or None where it has none; tokenizer_config: what goes with it. begin, end: numbers
    of the tokens with which a text begins and ends, or None; adds_begin: whether its tokenizer puts the first before a
    text.
    """

    where: str
    config: dict[str, Any]
    tensors: dict[str, Stored]
    tokenizer: Callable[[], bytes] | None
    begin: int | None
    end: int | None
    adds_begin: bool
    tokenizer_config: dict[str, Any] = {}  # noqa: RUF012, never changed
