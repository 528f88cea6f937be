"""Which way does each objective err? KL[P||Q] against KL[Q||P], a point for each run."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from gentrain.reporting import plots

EVALUATORS = ("exact", "exposure")  # those that measure both divergences, the exact one first


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """To the right forward KL, large for a model that misses data; upwards reverse KL, large for one whose samples are
    not like the data. Runs of objective 'adversarial' are joined along the dial. Returned: both, by variant."""
    figure, axes = plt.subplots(figsize=(6, 4.5), dpi=130)
    numbers: dict[str, Any] = {}
    dial: list[tuple[float, float, float]] = []
    for name, result in results.items():
        final, config = result["final"], result["config"]
        evaluators = [evaluator for evaluator in EVALUATORS if f"{evaluator}/reverse_kl" in final]
        if not evaluators:
            continue
        forward = final[f"{evaluators[0]}/forward_kl"]
        reverse = final[f"{evaluators[0]}/reverse_kl"]
        numbers[name] = {"forward_kl": forward, "reverse_kl": reverse}
        axes.plot(forward, reverse, "o", label=name)
        if config["objective.name"] == "adversarial":
            dial.append((config["objective.real_prior"], forward, reverse))
    dial.sort()
    axes.plot([forward for _, forward, _ in dial], [reverse for *_, reverse in dial], "-", color="0.7", zorder=0)
    for prior, forward, reverse in dial:
        axes.annotate(f"$\\pi$ = {prior:g}", (forward, reverse), fontsize=7, xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="KL[P||Q], nats", ylabel="KL[Q||P], nats", title="coverage against quality: less is better in both")
    axes.legend(frameon=False, fontsize=7)
    plots.save(figure, path)
    return numbers
