"""Options of source 'cmudict'."""

from gentrain.datasets.sources.base_options import PairedTextOptions as Options

__all__ = ["Options"]
