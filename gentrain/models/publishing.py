"""How a model of a published family goes out: in a form in which all that it has has a place in such a file."""

import dataclasses
from typing import Any

from gentrain.adapters import ADAPTER, without
from gentrain.errors import ConfigError
from gentrain.models.base_options import DecoderOptions

Tree = dict[str, Any]
TABLES = ("embed", "bos", "positions")  # whose rows are read times the root of the width, with scale_embeddings


def to_publish(options: Any, params: Tree, begin: int) -> tuple[Any, Tree]:
    """The same model without adapters, with a table that is read as it is, of which no row is both what begins a
    sequence and a column of another output. begin: the token whose row that is.

    Raises ConfigError for a model that no family has a place for.
    """
    if options.output_bias:
        raise ConfigError("no published family has a bias of its logits: train with output_bias=False")
    params = {**without(params), "layers": merged(options, params["layers"])}
    begins_otherwise = options.sees_begin and (params["embed"][begin] != params["bos"]).any()
    if options.tie_embeddings and (begins_otherwise or options.scale_embeddings):
        params |= {"output": {"kernel": params["embed"].T}}
        options = dataclasses.replace(options, tie_embeddings=False)
    if options.scale_embeddings:
        params |= {name: params[name] * options.width**0.5 for name in TABLES if name in params}
    return dataclasses.replace(options, scale_embeddings=False, lora_rank=0), params


def merged(options: DecoderOptions, layers: Tree) -> Tree:
    """Layers whose adapters are added to the maps that they adapt: W + alpha/rank A B."""
    found = {}
    for name, inner in without(layers).items():
        if adapter := layers.get(f"{name}{ADAPTER}"):
            added = options.lora_alpha / options.lora_rank * (adapter["down"] @ adapter["up"])
            inner = inner | {"kernel": inner["kernel"] + added.astype(inner["kernel"].dtype)}
        found[name] = inner
    return found
