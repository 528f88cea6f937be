"""Independent bits fitted to correlated ones: beyond a critical pi the best fit takes sides."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import worlds
from gentrain.reporting import plots

SAME = (0.46, 0.48)  # a: the probability of 00, and of 11
PRIORS = np.linspace(0.5, 1.0, 26)


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Lines: the larger marginal of the global minimiser for P = [[a, b], [b, a]], a + b = 1/2; dotted: where the
    symmetric fit stops being a local minimum. Points: the runs of the sweep.
    """
    figure, panel = plt.subplots(figsize=(6, 4), dpi=130)
    numbers: dict[str, Any] = {"real_prior": PRIORS.tolist()}
    for number, a in enumerate(SAME):
        p = np.asarray([[a, 0.5 - a], [0.5 - a, a]])
        larger_marginal = [float(worlds.js_minima(p, "factorised", prior)[0].parameters[0].max()) for prior in PRIORS]
        critical_prior = worlds.critical_prior(a)
        panel.plot(PRIORS, larger_marginal, color=f"C{number}", label=f"a = {a}")
        if critical_prior is not None:
            panel.axvline(critical_prior, color=f"C{number}", ls=":", lw=0.8)
        numbers[f"{a}"] = {"larger_marginal": larger_marginal, "critical_prior": critical_prior}
        for result in results.values():
            config = result["config"]
            table = config["data.world.probabilities"]
            if table and abs(table[0][0] - a) < 1e-9:
                reached = 0.5 + result["final"]["exact/max_marginal_error"]
                panel.plot(config["objective.real_prior"], reached, "o", color=f"C{number}", mfc="none")
    panel.set(xlabel="$\\pi$, weight on the data", ylabel="larger probability of a bit", ylim=(0.45, 1.0))
    panel.legend(frameon=False, fontsize=8)
    plots.save(figure, path)
    return numbers
