"""Is a game of two players going wrong? What tells it, as sums that cost next to nothing, and when to say so."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gentrain.metrics import Sum

ROWS = 64  # of a batch, compared with one another

# A sign, whether it is bad, and what to tell the person in front of the run.
ALARMS = {
    "collapse": (
        lambda m: m.get("generator/diversity", 1) < 0.25 or m.get("generator/nearest", 1) < 0.35,
        "collapse: samples are much more alike than the data are (diversity {generator/diversity:.2f}, nearest"
        " {generator/nearest:.2f} of the data's); try a lower objective.real_prior, r1 and r2, or entropy_weight",
    ),
    "saturated": (
        lambda m: m.get("critic/auc", 0.5) > 0.999,
        "saturated: the critic tells nearly every sample from the data (auc {critic/auc:.4f}), so its slope says"
        " little; try a lower optimizer.critic_scale, fewer critic_steps, r1 and r2, or critic.dropout",
    ),
    "chance": (
        lambda m: m.get("critic/auc", 1) < 0.52 and m.get("generator/apart", 0) > 0.02,
        "chance: the critic tells nothing apart (auc {critic/auc:.3f}) though samples and data differ (apart"
        " {generator/apart:.2f}): it has stopped learning, this is no success; try a higher optimizer.critic_scale",
    ),
}


def compare(real: jax.Array, fake: jax.Array) -> dict[str, Sum]:
    """How samples lie among themselves and to the data, without a critic: tokens (n, length), or (n, …) numbers.

    With d the share of tokens that differ, or the Euclidean distance, over pairs of the first 64 rows:
    diversity: E d(y, y') / E d(x, x'), samples y and data x; nearest: the same of the distance to the nearest other;
    apart: (2 E d(x, y) - E d(x, x') - E d(y, y')) / 2 E d(x, y), the energy distance by its largest value: 0 for the
    same law (with noise of either sign), 1 where both are points (Székely and Rizzo, 2013).
    """
    x, y = (jax.lax.stop_gradient(values[:ROWS]).reshape(min(len(values), ROWS), -1) for values in (real, fake))
    xx, yy, xy = distances(x, x), distances(y, y), distances(x, y).mean()
    within_x, within_y = (pairs.sum() / max(len(pairs) * (len(pairs) - 1), 1) for pairs in (xx, yy))
    nearest = lambda pairs: jnp.min(pairs + jnp.where(jnp.eye(len(pairs), dtype=bool), jnp.inf, 0), axis=1).mean()
    return {
        "diversity": Sum(within_y, within_x),
        "nearest": Sum(nearest(yy), nearest(xx)) if len(x) > 1 else Sum(jnp.zeros(()), jnp.zeros(())),
        "apart": Sum(2 * xy - within_x - within_y, 2 * xy),
    }


def distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """(n, m): the share of tokens that differ, or Euclidean."""
    if jnp.issubdtype(a.dtype, jnp.integer):
        return jnp.mean(a[:, None, :] != b[None, :, :], axis=-1, dtype=jnp.float32)
    return jnp.sqrt(jnp.sum(jnp.square(a[:, None, :] - b[None, :, :]), axis=-1))


class Alarms:
    """Raised when a sign was bad in two looks in a row, told once, and again after it went away."""

    def __init__(self) -> None:
        self.before = dict.fromkeys(ALARMS, 0)

    def read(self, values: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
        """{'health/collapse': 0 or 1, …} for a game with these signs, else {}; and the lines to be said now."""
        if "generator/apart" not in values:
            return {}, []
        lines = []
        for name, (bad, text) in ALARMS.items():
            self.before[name] = self.before[name] + 1 if bad(values) else 0
            if self.before[name] == 2:
                lines.append(text.format_map(values))
        return {f"health/{name}": float(count >= 2) for name, count in self.before.items()}, lines
