"""Why one temperature says nothing: quality against coverage as each model's temperature is swept (Caccia et al.,
2020)."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from gentrain import worlds

ALPHAS = np.linspace(0.3, 3.0, 109)  # inverse temperatures
SLACK = 0.2  # nats/token that a model may lose in likelihood for the sake of quality


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """NLL_oracle = -E_Q log P against NLL_test = -E_P log Q, nats/token, of three models of a world of 3^4 strings.

    Each is sharpened step by step; the dot is alpha = 1, the star the least NLL_oracle within SLACK of it.
    """
    del results
    p = np.random.default_rng(1).dirichlet(np.full(81, 1.0)).reshape((3,) * 4)
    independent = np.einsum("a,b,c,d->abcd", *(p.sum(tuple(set(range(4)) - {t})) for t in range(4)))
    first = np.sort(p.ravel())[30]
    models = {
        "smoothed: 0.8 P + 0.2 uniform": 0.8 * p + 0.2 / p.size,
        "product of marginals": independent,
        "drops the 30 rarest": np.where(p > first, p, 0.02 * p) / np.where(p > first, p, 0.02 * p).sum(),
    }
    figure, panel = plt.subplots(figsize=(6, 4.2), dpi=130)
    numbers: dict[str, Any] = {"alpha": ALPHAS.tolist()}
    for name, q in models.items():
        swept = [sharpened(q, alpha) for alpha in ALPHAS]
        oracle = np.asarray([-(law * np.log(p)).sum() / p.ndim for law in swept])
        test = np.asarray([-(p * np.log(law)).sum() / p.ndim for law in swept])
        one = int(np.argmin(np.abs(ALPHAS - 1)))
        allowed = np.where(test <= test[one] + SLACK, oracle, np.inf)
        best = int(np.argmin(allowed))
        (line,) = panel.plot(test, oracle, lw=1.2, label=name)
        panel.plot(test[one], oracle[one], "o", color=line.get_color())
        panel.plot(test[best], oracle[best], "*", ms=12, color=line.get_color())
        numbers[name] = {"nll_test": test.tolist(), "nll_oracle": oracle.tolist(), "best_alpha": ALPHAS[best]}
    entropy = -(p * np.log(p)).sum() / p.ndim
    panel.plot(entropy, entropy, "k+", ms=10, label="Q = P")
    panel.set(xlabel="NLL_test, nats/token (coverage)", ylabel="NLL_oracle, nats/token (quality)")
    panel.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return numbers


def sharpened(q: np.ndarray, alpha: float) -> np.ndarray:
    """The law whose every next-token law is proportional to q's to the power alpha."""
    law = np.ones(())
    for conditional in worlds.conditionals(q):
        sharp = conditional**alpha
        law = law[..., None] * sharp / sharp.sum(-1, keepdims=True)
    return law
