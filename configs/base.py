"""Where every config file starts: all options at their defaults.

A config file changes what differs. `python -m launch.list keys` says what each option means, in which unit, and when it
is read. Keys are locked: an unknown or mistyped key is an error that names the nearest one, and an option that is set
and that nothing selected reads is an error that names who would read it.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from gentrain.errors import ConfigError
from gentrain.options import tree

# Megatron-style tensor parallelism for models/transformer.py: columns of the first matmul, rows of the second. They do
# for models/gpt2.py too, whose queries, keys and values go by none: split as one, they would not be whole heads.
# Each rule is (regular expression on the parameter's path, mesh axis of each dimension); layers are stacked in
# dimension 0.
TRANSFORMER_RULES = (
    (r"layers/(query|key|value|gate|up)/kernel", (None, "fsdp", "tensor")),
    (r"layers/(out|down)/kernel", (None, "tensor", "fsdp")),
    (r"embed$", ("tensor", "fsdp")),
)


def get_config() -> ConfigDict:
    """Every option at its default."""
    return tree.default_config()


def grid(values: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], ...]:
    """Every combination of values: {"seed": (0, 1), "model.width": (64, 128)} is a sweep of four variants."""
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))


def from_starts(
    methods: Iterable[Mapping[str, Any]], start: str, seeds: int, *others: tuple[str, str, str]
) -> tuple[dict[str, Any], ...]:
    """Each method from each of the runs START/seed=N, and by that seed. others: of other players, as in init_from."""
    return tuple(
        {**method, "seed": seed, "init_from": (*others, ("generator", f"{start}/seed={seed}", "generator"))}
        for method in methods
        for seed in range(seeds)
    )


def require_variant(variant: str, variants: Sequence[str]) -> None:
    """Raises ConfigError for a variant that the config file does not have."""
    if variant not in variants:
        raise ConfigError(f"no variant {variant!r}; there are: {', '.join(filter(None, variants))}")
