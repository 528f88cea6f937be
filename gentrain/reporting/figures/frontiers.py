"""Which objective has the better samples at the same coverage: nll_oracle against nll_test over temperatures."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain.metrics.frontiers import least_under
from gentrain.reporting import plots

ALLOWED = 0.4  # nats a token of nll_test that quality may cost, beyond likelihood's own


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """A curve for each variant of a sweep, measured by evaluator 'frontier'; the ring is temperature 1.

    Returned for each: its points, and best, the least nll_oracle where nll_test is at most that of the first variant
    trained by likelihood (at temperature 1) plus 0.4 nats a token, between temperatures by a straight line; NaN where
    none comes under it.
    """
    curves = {name: _curve(result["final"]) for name, result in results.items()}
    curves = {name: curve for name, curve in curves.items() if curve}
    figure, axes = plt.subplots(figsize=(6.5, 4.5), dpi=130)
    numbers: dict[str, Any] = {}
    by_likelihood = [name for name in curves if results[name]["config"]["objective.name"] == "likelihood"]
    bound = float("inf")
    if by_likelihood:
        _, nll_test = curves[by_likelihood[0]][1.0]
        bound = nll_test + ALLOWED
    for name, curve in curves.items():
        points = np.asarray(list(curve.values())).T
        oracle, test = points
        (line,) = axes.plot(test, oracle, ".-", label=name)
        plain_oracle, plain_test = curve[1.0]
        axes.plot(plain_test, plain_oracle, "o", color=line.get_color(), mfc="none", ms=9)
        numbers[name] = {"temperature": list(curve), "nll_oracle": oracle.tolist(), "nll_test": test.tolist()}
        numbers[name]["best"] = least_under(points, bound)
    if np.isfinite(bound):
        axes.axvline(bound, color="0.6", lw=0.8, label=f"likelihood + {ALLOWED:g}")
        axes.set_xlim(right=bound + 1)
    axes.set(xlabel="nll_test, nats/token", ylabel="nll_oracle, nats/token", title="samples against coverage")
    axes.legend(frameon=False, fontsize=7)
    plots.save(figure, path)
    return numbers


def _curve(final: dict[str, float]) -> dict[float, tuple[float, float]]:
    """(nll_oracle, nll_test) by temperature."""
    temperatures = sorted(float(name.partition("@")[2]) for name in final if name.startswith("frontier/nll_oracle@"))
    return {t: (final[f"frontier/nll_oracle@{t:g}"], final[f"frontier/nll_test@{t:g}"]) for t in temperatures}
