"""Where estimators of distillation end: the student's mass on the teacher's likeliest tokens, beside theory's."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from gentrain.objectives.token_estimators import ESTIMATORS
from gentrain.options.identity import section
from gentrain.reporting import plots
from gentrain.worlds.table import build_table

# Q(T) by P(T), where the estimator ends; all others end at P itself.
ENDS = {"truncated": 1 / np.e, "renormalised": None}


def draw(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Circles: Q(T) of the runs of a sweep, T the tokens that their estimators sum over; bars: where theory says that
    each ends, and none where it says nothing. Right: what they end at, token by token, the likeliest of P first."""
    runs = {}
    for name, result in results.items():
        config = result["config"]
        if config["objective.name"] == "distillation" and config["data.world.length"] == 1:
            runs[name] = (section(config, "distillation"), config["objective.real_prior"], result["final"])
    tops = [options.top_k for options, _, _ in runs.values() if options.top_k]
    top = max(tops, default=4)
    p = (
        law(next(iter(results.values()))["config"])
        if runs
        else np.sort(np.random.default_rng(1).dirichlet(np.ones(12)))
    )
    likeliest = np.argsort(-p)
    mass = float(p[likeliest[:top]].sum())
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), dpi=130)
    numbers: dict[str, Any] = {"P(T)": mass, "P(T)/e": mass / float(np.e)}
    panels[1].bar(np.arange(len(p)), p[likeliest], color="0.85", label="P")
    for row, (options, prior, final) in enumerate(runs.values()):
        label = options.estimator if options.estimator != "exact" else f"exact, $\\pi$ = {prior:g}"
        q = np.array([final[f"exact/marginal_0_{token}"] for token in range(len(p))])
        end = ENDS.get(options.estimator, 1.0)
        if end:
            panels[0].plot([mass * end] * 2, [row - 0.35, row + 0.35], color="0.3", lw=2)
        panels[0].plot(q[likeliest[:top]].sum(), row, "o", mfc="none", color=f"C{row % 10}")
        panels[0].text(0.02, row, label, va="center", fontsize=7, transform=panels[0].get_yaxis_transform())
        numbers[label] = float(q[likeliest[:top]].sum())
        if options.estimator in ("truncated", "tail_bucket", "k1_score"):
            panels[1].plot(q[likeliest], "o-", ms=3, lw=0.8, color=f"C{row % 10}", label=label)
    panels[0].axvline(mass, color="0.7", lw=0.8, ls=":")
    panels[0].axvline(mass / np.e, color="0.7", lw=0.8, ls=":")
    panels[0].set(xlim=(-0.45, 1), xlabel="Q(T); dotted: P(T)/e and P(T)", yticks=[], title="mass on the top tokens")
    panels[0].set_xticks(np.linspace(0, 1, 6))
    panels[1].set(xlabel="tokens, the likeliest of P first", ylabel="probability", title="where they end")
    panels[1].legend(frameon=False, fontsize=7)
    plots.save(figure, path)
    return numbers | variances(p, top)


def variances(p: np.ndarray, top: int) -> dict[str, float]:
    """Of one draw's gradient in the logits, by the squared norm of its mean, where Q is uniform: of those estimators
    whose mean is the gradient of KL[Q||P], or of KL[P||Q] for k3_forward_kl."""
    log_p = jnp.log(jnp.asarray(p, jnp.float32))
    found = {}
    for name in ("k1_score", "k2", "k3_forward_kl", "top_k_plus_score"):
        gradient = jax.grad(
            lambda logits, token, name=name: ESTIMATORS[name](log_p, jax.nn.log_softmax(logits), token, top)
        )
        slopes = np.asarray(jax.vmap(gradient, (None, 0))(jnp.zeros(len(p)), jnp.arange(len(p))), np.float64)
        mean = slopes.mean(0)
        found[f"variance of {name}"] = float(np.square(slopes - mean).sum(1).mean() / np.square(mean).sum())
    return found


def law(config: dict[str, Any]) -> np.ndarray:
    """P of a world of one token."""
    return build_table(section(config, "data.world")).probabilities()
