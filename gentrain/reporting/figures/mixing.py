"""What an auxiliary corpus is worth to a small one that is repeated, in unique examples of its own (Jeha, Sedova,
Béthune et al., 2026, arXiv 2605.13225)."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

from gentrain.reporting import plots

PUBLISHED = (2.0, 3.0)  # the paper's multiplier of unique data at equal loss, where the target is a language


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """The least held-out NLL of the target, the first source of every mixture, over a run's evaluations, nats/token:
    against the auxiliary share of the examples and against the passes over the target's; and the multiplier.

    Returned by the number of unique examples, lists over the shares, each a mean over seeds: share, nll, epochs (over
    the whole run), step (of the least NLL) and multiplier (see `multiplier`).
    """
    measured: dict[int, dict[float, list]] = defaultdict(lambda: defaultdict(list))
    for result in results.values():
        config = result["config"]
        (target, weight, _, examples), *others = config["data.mixture.sources"]
        share = 1 - weight / (weight + sum(other[1] for other in others))
        best = result["best"][f"valid/nll_of_{target}" if others else "valid/nll"]
        epochs = config["steps"] * config["data.batch_size"] * (1 - share) / examples
        measured[examples][share].append((best["value"], epochs, best["step"]))
    by_size = {size: dict(sorted(measured[size].items())) for size in sorted(measured)}
    alone = {size: np.mean(runs[0.0], 0)[0] for size, runs in by_size.items() if 0.0 in runs}
    numbers: dict[str, Any] = {}
    figure, panels = plt.subplots(1, 3, figsize=(13, 4), dpi=130)
    for size, runs in by_size.items():
        shares = list(runs)
        nll, epochs, step = np.array([np.mean(values, 0) for values in runs.values()]).T
        worth = [multiplier(size, value, alone) for value in nll]
        columns = {"share": shares, "nll": nll, "epochs": epochs, "step": step, "multiplier": worth}
        numbers[str(size)] = {name: np.asarray(column).tolist() for name, column in columns.items()}
        for panel, x, y in zip(panels, (shares, epochs, shares), (nll, nll, worth), strict=True):
            panel.plot(x, y, "o-", ms=4, label=f"{size:,} unique")
    panels[1].set(xscale="log", xlabel="passes over the target's unique examples")
    panels[2].axhspan(*PUBLISHED, color="0.9", label="the paper's 2-3")
    panels[2].set(yscale="log", xlabel="auxiliary share", ylabel="worth in unique examples, times those there")
    panels[2].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[2].yaxis.set_major_formatter("{x:g}")
    panels[2].minorticks_off()
    panels[0].set(xlabel="auxiliary share", ylabel="best held-out NLL of the target, nats/token")
    panels[2].legend(frameon=False, fontsize=8)
    plots.save(figure, path)
    return numbers


def multiplier(size: int, nll: float, alone: dict[int, float]) -> float:
    """How many times `size` unique examples a run without a mixture needs to reach an NLL; alone: size -> its NLL.

    Between sizes by a straight line in the logarithm of the size; sizes that are no better than a smaller one are left
    out. NaN for an NLL that none of them surrounds.
    """
    falling: list[tuple[float, float]] = []
    for unique in sorted(alone):
        if not falling or alone[unique] < falling[-1][0]:
            falling.append((alone[unique], np.log(unique)))
    losses, logs = np.array(falling[::-1]).reshape(-1, 2).T
    return float(np.exp(np.interp(nll, losses, logs, left=np.nan, right=np.nan)) / size)
