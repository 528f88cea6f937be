"""Options of a folder of images."""

from dataclasses import dataclass

from gentrain.datasets.sources.base_options import ImageOptions


@dataclass(frozen=True)
class Options(ImageOptions):
    argument = "DIR"
    shared = (*ImageOptions.shared, "image_size", "max_damaged", "valid_fraction", "test_fraction")
