"""How the probability of feeding the true token falls: the schedules of Bengio et al. (2015), and a sweep's own."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from ml_collections import ConfigDict

from gentrain import schedules
from gentrain.options.identity import section
from gentrain.reporting import plots

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

    def draw_schedule(name: str, options: ConfigDict, last_step: int, style: str) -> None:
        steps = np.linspace(0, last_step, 201)
        keep_true = np.asarray(schedules.keep_true(options)(steps)).tolist()
        axes.plot(steps, keep_true, style, label=name)
        numbers[name] = {"step": steps.tolist(), "keep_true": keep_true}

    for name, (schedule, k, slope) in EXAMPLES.items():
        options = ConfigDict({"keep_schedule": schedule, "keep_true": 0.0, "keep_k": k, "keep_slope": slope})
        draw_schedule(name, options, STEPS, "-")
    for name, result in results.items():
        config = result["config"]
        options = section(config, "scheduled_sampling")
        if config["objective.name"] == "scheduled_sampling" and options.keep_schedule != "constant":
            draw_schedule(name, options, config["steps"], "--")
    axes.set(title="probability of feeding the true token", xlabel="step", ylabel="keep_true", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=7)
    plots.save(figure, path)
    return numbers
