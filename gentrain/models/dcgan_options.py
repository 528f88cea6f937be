"""Options of the convolutions: a resolution has one layer, so `layers` is not read."""

from dataclasses import dataclass

from gentrain.models import base_options


@dataclass(frozen=True)
class Options(base_options.ImageModelOptions):
    shared = ("width", "param_dtype", "compute_dtype")


@dataclass(frozen=True)
class CriticOptions(base_options.ImageCriticOptions):
    shared = ("width", "dropout", "param_dtype", "compute_dtype")
