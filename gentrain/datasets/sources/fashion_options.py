"""Options of source 'fashion'."""

from dataclasses import dataclass

from gentrain.datasets.sources.base_options import ImageOptions


@dataclass(frozen=True)
class Options(ImageOptions):
    shared = (*ImageOptions.shared, "image_size")
