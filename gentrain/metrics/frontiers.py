"""What two numbers that are bought with one another come to, at one price: quality at a given coverage."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float


def least_under(curve: Float[np.ndarray, "2 points"], bound: float) -> float:
    """The least value of a curve (value, price) where its price is at most the bound; nan where none is so cheap.

    The curve is drawn through its points in order by straight lines. Where two curves are the same one, run through at
    other speeds, as those of a model and of its sharpened self over temperatures, they have the same least value, but
    for the lines between points.
    """
    values, prices = curve
    allowed = values[prices <= bound].tolist()
    for (start, end), (cheap, dear) in zip(pairwise(values), pairwise(prices), strict=True):
        if min(cheap, dear) <= bound < max(cheap, dear):
            allowed.append(start + (bound - cheap) / (dear - cheap) * (end - start))
    return float(min(allowed, default=float("nan")))
