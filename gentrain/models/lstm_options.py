"""Options of the LSTM."""

from gentrain.models.base_options import TokenModelOptions as Options

__all__ = ["Options"]
