"""Which way does each objective err? KL[P||Q] against KL[Q||P], a point for each run."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

PLACES = ("exact", "exposure")  # evaluators that know both, the exact one first


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Forward KL, large for a model that misses data, to the right; reverse KL, large for one whose samples are not
    like the data, upwards. Runs of objective 'adversarial' are joined along the dial. Returned: both, by variant."""
    figure, axes = plt.subplots(figsize=(6, 4.5), dpi=130)
    numbers, dial = {}, []
    for name, found in results.items():
        final, config = found["final"], found["config"]
        known = [place for place in PLACES if f"{place}/reverse_kl" in final]
        if not known:
            continue
        point = final[f"{known[0]}/forward_kl"], final[f"{known[0]}/reverse_kl"]
        numbers[name] = {"forward_kl": point[0], "reverse_kl": point[1]}
        axes.plot(*point, "o", label=name)
        if config["objective.name"] == "adversarial":
            dial.append((config["objective.real_prior"], *point))
    axes.plot(*list(zip(*sorted(dial), strict=True))[1:], "-", color="0.7", zorder=0)
    for prior, *point in dial:
        axes.annotate(f"$\\pi$ = {prior:g}", point, fontsize=7, xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="KL[P||Q], nats", ylabel="KL[Q||P], nats", title="coverage against quality: less is better in both")
    axes.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return numbers
