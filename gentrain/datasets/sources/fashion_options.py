"""Options of source 'fashion'."""

from gentrain.datasets.sources.base_options import ImageOptions as Options

__all__ = ["Options"]
