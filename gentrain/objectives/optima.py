"""Minimisers of JS_pi that several objectives share."""

from functools import reduce
from typing import Any

import numpy as np

from gentrain import worlds
from gentrain.objectives.base import Optimum


def factorised_optimum(model: Any, world: worlds.World, real_prior: float) -> Optimum | None:
    """The table of independent positions that is nearest to the world in JS_pi; None for other models and worlds."""
    if not getattr(model, "independent", False) or not isinstance(world, worlds.SequenceWorld):
        return None
    marginals = worlds.js_minima(world, "factorised", real_prior)[0].parameters
    return Optimum("minimiser", reduce(np.multiply.outer, marginals), real_prior)
