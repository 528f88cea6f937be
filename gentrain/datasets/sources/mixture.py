"""Several sources at a time, by weight."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets.build import Data, WeightedSource, from_sources


def build(config: ConfigDict, workdir: Path | None, rows: np.ndarray) -> Data:
    """Each example is drawn from a source by its share; all have one vocabulary."""
    chosen = config.data.mixture.sources
    sources = [WeightedSource(str(name), float(weight), *map(int, counts)) for name, weight, *counts in chosen]
    return from_sources(config, sources, workdir, rows)
