"""Which objective has the better samples at the same coverage: nll_oracle against nll_test over temperatures."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

ALLOWED = 0.4  # nats a token of nll_test that quality may cost, beyond likelihood's own


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """A curve for each variant of a sweep, measured by evaluator 'frontier'; the ring is temperature 1.

    Returned for each: its points, and best, the least nll_oracle where nll_test is at most that of the first variant
    trained by likelihood (at temperature 1) plus 0.4 nats a token, between temperatures by a straight line; NaN where
    none comes under it.
    """
    curves = {name: curve for name, found in results.items() if (curve := _curve(found["final"]))}
    figure, axes = plt.subplots(figsize=(6.5, 4.5), dpi=130)
    numbers: dict[str, Any] = {}
    first = [name for name in curves if results[name]["config"]["objective.name"] == "likelihood"]
    bound = curves[first[0]][1.0][1] + ALLOWED if first else float("inf")
    for name, curve in curves.items():
        oracle, test = np.asarray(list(curve.values())).T
        (line,) = axes.plot(test, oracle, ".-", label=name)
        axes.plot(curve[1.0][1], curve[1.0][0], "o", color=line.get_color(), mfc="none", ms=9)
        numbers[name] = {"temperature": list(curve), "nll_oracle": oracle.tolist(), "nll_test": test.tolist()}
        numbers[name]["best"] = best(oracle, test, bound)
    if np.isfinite(bound):
        axes.axvline(bound, color="0.6", lw=0.8, label=f"likelihood + {ALLOWED:g}")
        axes.set_xlim(right=bound + 1)
    axes.set(xlabel="nll_test, nats/token", ylabel="nll_oracle, nats/token", title="samples against coverage")
    axes.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return numbers


def best(oracle: np.ndarray, test: np.ndarray, bound: float) -> float:
    """The least nll_oracle of a curve, drawn through its points in order, where nll_test <= bound."""
    allowed = oracle[test <= bound].tolist()
    for (a, b), (x, y) in zip(pairwise(oracle), pairwise(test), strict=True):
        if min(x, y) <= bound < max(x, y):
            allowed.append(a + (bound - x) / (y - x) * (b - a))
    return float(min(allowed, default=float("nan")))


def _curve(final: dict[str, float]) -> dict[float, tuple[float, float]]:
    """(nll_oracle, nll_test) by temperature."""
    temperatures = sorted(float(name.partition("@")[2]) for name in final if name.startswith("frontier/nll_oracle@"))
    return {t: (final[f"frontier/nll_oracle@{t:g}"], final[f"frontier/nll_test@{t:g}"]) for t in temperatures}
