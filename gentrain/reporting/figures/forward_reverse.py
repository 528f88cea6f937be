"""Which way does each objective err? KL[P||Q] against KL[Q||P], a point for each run."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

PLACES = ("exact", "exposure")  # evaluators that know both, the exact one first


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Forward KL, large for a model that misses data, to the right; reverse KL, large for one whose samples are not
    like the data, upwards. Runs of objective 'adversarial' are joined along the dial. Returned: both, by variant."""
    figure, axes = plt.subplots(figsize=(6, 4.5), dpi=130)
    numbers: dict[str, Any] = {}
    dial: list[tuple[float, float, float]] = []
    for name, found in results.items():
        final, config = found["final"], found["config"]
        known = [place for place in PLACES if f"{place}/reverse_kl" in final]
        if not known:
            continue
        forward, reverse = (final[f"{known[0]}/{way}_kl"] for way in ("forward", "reverse"))
        numbers[name] = {"forward_kl": forward, "reverse_kl": reverse}
        axes.plot(forward, reverse, "o", label=name)
        if config["objective.name"] == "adversarial":
            dial.append((config["objective.real_prior"], forward, reverse))
    axes.plot(*list(zip(*sorted(dial), strict=True))[1:], "-", color="0.7", zorder=0)
    for prior, forward, reverse in dial:
        axes.annotate(f"$\\pi$ = {prior:g}", (forward, reverse), fontsize=7, xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="KL[P||Q], nats", ylabel="KL[Q||P], nats", title="coverage against quality: less is better in both")
    axes.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return numbers
