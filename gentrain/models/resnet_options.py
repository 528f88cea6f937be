"""Options of the residual networks."""

from gentrain.models.base_options import ImageCriticOptions as CriticOptions
from gentrain.models.base_options import ImageModelOptions as Options

__all__ = ["CriticOptions", "Options"]
