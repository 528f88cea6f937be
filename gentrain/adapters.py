"""Parameters of which a few learn: adapters beside what a run takes from elsewhere and leaves as it is.

A player whose tree has adapters learns them alone. The rest of the tree is among the frozen parameters: it has no
gradient, no optimiser state and no place in a checkpoint.
"""

from typing import Any

ADAPTER = "adapter"  # the name of a sub-tree that learns


def split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what learns, the rest) of a player's tree: all of it and nothing, if it has no adapter."""
    learned = find(params)
    return (learned, without(params)) if learned else (params, {})


def find(tree: Any) -> dict[str, Any]:
    """The adapters of a tree, each in its place."""
    if not isinstance(tree, dict):
        return {}
    found = {name: inner if name == ADAPTER else find(inner) for name, inner in tree.items()}
    return {name: inner for name, inner in found.items() if inner}


def without(tree: Any) -> Any:
    """The tree without its adapters."""
    if not isinstance(tree, dict):
        return tree
    return {name: without(inner) for name, inner in tree.items() if name != ADAPTER}


def join(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both trees in one; where both have a leaf, the other's."""
    both = one.keys() & other.keys()
    nested = {name for name in both if isinstance(one[name], dict) and isinstance(other[name], dict)}
    return one | other | {name: join(one[name], other[name]) for name in nested}
