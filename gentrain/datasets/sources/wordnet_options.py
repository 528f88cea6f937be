"""Options of source 'wordnet'."""

from gentrain.datasets.sources.base_options import TextOptions as Options

__all__ = ["Options"]
