"""gentrain: train generative models by any objective, and see which one goes where theory says."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gentrain.api import Loaded, load

__all__ = ["Loaded", "load"]


def __getattr__(name: str) -> Any:
    """`gentrain.load`, which brings JAX with it, is imported when it is first asked for."""
    if name in __all__:
        from gentrain import api

        return getattr(api, name)
    raise AttributeError(f"module 'gentrain' has no attribute {name!r}")
