"""Why one temperature says nothing: quality against coverage as each model's temperature is swept (Caccia et al.,
2020)."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import worlds
from gentrain.reporting import plots

ALPHAS = np.linspace(0.3, 3.0, 109)  # inverse temperatures
SLACK = 0.2  # nats/token that a model may lose in likelihood for the sake of quality


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """NLL_oracle = -E_Q log P against NLL_test = -E_P log Q, nats/token, of three models of a world of 3^4 strings.

    Each is sharpened step by step; the dot is alpha = 1, the star the least NLL_oracle within SLACK of it.
    """
    del results
    p = np.random.default_rng(1).dirichlet(np.full(81, 1.0)).reshape((3,) * 4)
    marginals = [p.sum(tuple(set(range(4)) - {position})) for position in range(4)]
    rare = np.sort(p.ravel())[30]
    dropped = np.where(p > rare, p, 0.02 * p)
    models = {
        "smoothed: 0.8 P + 0.2 uniform": 0.8 * p + 0.2 / p.size,
        "product of marginals": np.einsum("a,b,c,d->abcd", *marginals),
        "drops the 30 rarest": dropped / dropped.sum(),
    }
    figure, panel = plt.subplots(figsize=(6, 4.2), dpi=130)
    numbers: dict[str, Any] = {"alpha": ALPHAS.tolist()}
    for name, q in models.items():
        models_by_alpha = [sharpened(q, alpha) for alpha in ALPHAS]
        oracle = np.asarray([-(model * np.log(p)).sum() / p.ndim for model in models_by_alpha])
        test = np.asarray([-(p * np.log(model)).sum() / p.ndim for model in models_by_alpha])
        plain = int(np.argmin(np.abs(ALPHAS - 1)))
        allowed = np.where(test <= test[plain] + SLACK, oracle, np.inf)
        best = int(np.argmin(allowed))
        (line,) = panel.plot(test, oracle, lw=1.2, label=name)
        panel.plot(test[plain], oracle[plain], "o", color=line.get_color())
        panel.plot(test[best], oracle[best], "*", ms=12, color=line.get_color())
        numbers[name] = {"nll_test": test.tolist(), "nll_oracle": oracle.tolist(), "best_alpha": ALPHAS[best]}
    entropy = -(p * np.log(p)).sum() / p.ndim
    panel.plot(entropy, entropy, "k+", ms=10, label="Q = P")
    panel.set(xlabel="NLL_test, nats/token (coverage)", ylabel="NLL_oracle, nats/token (quality)")
    panel.legend(frameon=False, fontsize=8)
    plots.save(figure, path)
    return numbers


def sharpened(q: np.ndarray, alpha: float) -> np.ndarray:
    """The table whose every next-token distribution is proportional to q's to the power alpha."""
    table = np.ones(())
    for conditional in worlds.conditionals(q):
        sharp = conditional**alpha
        table = table[..., None] * sharp / sharp.sum(-1, keepdims=True)
    return table
