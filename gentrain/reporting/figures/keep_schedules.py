"""How the probability of feeding the true token falls: the schedules of Bengio et al. (2015), and a sweep's own."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from ml_collections import ConfigDict

from gentrain import schedules
from gentrain.options.identity import section

EXAMPLES = {
    "linear, k = 1, slope 1/800": ("linear", 1.0, 1 / 800),
    "exponential, k = 0.995": ("exponential", 0.995, 0.0),
    "inverse sigmoid, k = 100": ("inverse_sigmoid", 100.0, 0.0),
}
STEPS = 1000


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """keep_true against the step, with a floor of 0; dashed those of a sweep's variants that are not constant."""
    figure, axes = plt.subplots(figsize=(6, 3.4), dpi=130)
    numbers: dict[str, Any] = {}

    def line(name: str, options: ConfigDict, steps: int, style: str) -> None:
        at = np.linspace(0, steps, 201)
        numbers[name] = {"step": at.tolist(), "keep_true": np.asarray(schedules.keep_true(options)(at)).tolist()}
        axes.plot(at, numbers[name]["keep_true"], style, label=name)

    for name, (schedule, k, slope) in EXAMPLES.items():
        line(
            name,
            ConfigDict({"keep_schedule": schedule, "keep_true": 0.0, "keep_k": k, "keep_slope": slope}),
            STEPS,
            "-",
        )
    for name, found in results.items():
        options = section(found["config"], "scheduled_sampling")
        if found["config"]["objective.name"] == "scheduled_sampling" and options.keep_schedule != "constant":
            line(name, options, found["config"]["steps"], "--")
    axes.set(title="probability of feeding the true token", xlabel="step", ylabel="keep_true", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return numbers
