"""Whether a run is sound: its updates finite, its losses near where they began. Part of the state, on the devices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gentrain.errors import Diverged
from gentrain.objectives.base import Alarm

FAR = 30  # times the size of the first loss, at least 1: a loss that is higher by more than that is far above it
WINDOW = 128  # steps whose losses a spike stands out from


def shows_far(means: Mapping[str, float]) -> bool:
    return any(value > 0.5 for name, value in means.items() if name.endswith("/far"))


FAR_ALARM = Alarm(
    "far",
    shows_far,
    "a loss is far above where it began: lower optimizer.learning_rate, and begin from a checkpoint before it rose with"
    " --rewind=STEP",
    patience=1,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Health:
    """What the update remembers of its own soundness.

    skipped: updates of each player in a row that were not applied. first_loss: of each player, NaN before its first
    step. losses: of each player the newest WINDOW finite ones, NaN where there are none yet. sound: steps in a row in
    which every update was applied and no loss was far above the first. spoiled: steps in a row in which a loss was not
    finite, or far above the first: something is wrong with the parameters, and not with one update.
    """

    skipped: dict[str, Int[Array, ""]]
    first_loss: dict[str, Float[Array, ""]]
    losses: dict[str, Float[Array, "window"]]
    sound: Int[Array, ""]
    spoiled: Int[Array, ""]


def begin(players: list[str]) -> Health:
    """The health of a run that has made no step."""
    return Health(
        skipped={player: jnp.zeros((), jnp.int32) for player in players},
        first_loss={player: jnp.full((), jnp.nan, jnp.float32) for player in players},
        losses={player: jnp.full(WINDOW, jnp.nan, jnp.float32) for player in players},
        sound=jnp.zeros((), jnp.int32),
        spoiled=jnp.zeros((), jnp.int32),
    )


def is_spike(losses: Float[Array, "window"], loss: Float[Array, ""], spike_sigma: float) -> Bool[Array, ""]:
    """Whether a loss is more than spike_sigma standard deviations above the mean of those before it.

    Never before WINDOW losses are there, nor at spike_sigma 0.
    """
    if not spike_sigma:
        return jnp.zeros((), bool)
    return loss > losses.mean() + spike_sigma * losses.std()  # False while one of them is NaN


def observe(
    health: Health, player: str, loss: Float[Array, ""], applied: Bool[Array, ""], step: Int[Array, ""]
) -> tuple[Health, Bool[Array, ""]]:
    """The health after an update of a player, and whether its loss is far above the first."""
    first, losses = health.first_loss[player], health.losses[player]
    first = jnp.where(jnp.isnan(first) & jnp.isfinite(loss), loss, first).astype(jnp.float32)
    # A spike is remembered too: a loss that has risen for good is no spike for long.
    losses = losses.at[step % WINDOW].set(jnp.where(jnp.isfinite(loss), loss, losses[step % WINDOW]))
    skipped = jnp.where(applied, 0, health.skipped[player] + 1)
    health = replace(
        health,
        skipped={**health.skipped, player: skipped},
        first_loss={**health.first_loss, player: first},
        losses={**health.losses, player: losses},
    )
    return health, loss - first > FAR * jnp.maximum(jnp.abs(first), 1)


def count_step(health: Health, applied: Bool[Array, ""], near: Bool[Array, ""]) -> Health:
    """The health after all updates of a step; near: whether every loss was finite and not far above the first."""
    sound = jnp.where(applied & near, health.sound + 1, 0)
    return replace(health, sound=sound, spoiled=jnp.where(near, 0, health.spoiled + 1))


def check(step: int, health: Any, max_skipped: int, last: bool = False) -> bool:
    """Whether the state of a step may be saved: no player is stuck in updates that cannot be applied.

    health: its numbers on the host. Raises Diverged after max_skipped such updates in a row, at the last step after
    one; its `since` is the first step whose parameters are spoiled.
    """
    player = max(health.skipped, key=lambda name: health.skipped[name])
    skipped = int(health.skipped[player])
    if skipped >= max_skipped or (skipped and last):
        raise Diverged(
            f"{player}: {skipped} updates in a row were not finite, from step {step - skipped} on, and none was"
            " applied; lower optimizer.learning_rate or set optimizer.clip_norm and run again",
            since=step - int(health.spoiled),
        )
    return not skipped
