"""How a run goes: means of its metrics since the last line of the log, its speed, and a trace of its steps."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gentrain import devices
from gentrain.sums import Metric, Sum, mean

METRICS = {
    "tokens_per_second": Metric("tokens/s", None, "of the player that moves last, over all devices"),
    "mfu": Metric("share", None, "of the devices' peak in use, counting 6 FLOP a parameter and token"),
}


class Meter:
    """Sums over the steps since the last line of the log, and how fast they went.

    mfu is the share of the devices' peak in use, counting 6 FLOP a parameter and token (attention not counted).
    """

    def __init__(self, player: str, parameters: int):
        """player: whose tokens are counted, by the weight of its entropy where it reports one (its loss may be weighed
        in sequences), else of its loss; parameters: how many each token goes through."""
        kind = jax.devices()[0].device_kind
        peak = devices.look_up(devices.PEAK_FLOPS, kind) or math.nan
        # A multiply and an add for each parameter and token forward, twice that backward.
        self.mfu_per_rate = 6 * parameters / (peak * jax.device_count())
        self.player = player
        self.reset()

    def reset(self) -> None:
        """Forgets the steps so far."""
        self.pending: list[Array] = []  # the sums of each step, side by side in one array
        self.names: tuple[str, ...] = ()
        self.since = time.monotonic()

    def push(self, sums: dict[str, Sum]) -> None:
        """The sums of one more step, of which at most one is left to run ahead: so a step that hangs is seen as one."""
        self.names = tuple(sums)
        self.pending.append(pack(list(sums.values())))
        jax.block_until_ready(self.pending[-2:-1])

    def read(self) -> dict[str, float]:
        """Means over the pending steps, tokens/second and, where the device's peak is known, the share of it in use."""
        totals = np.asarray(jax.device_get(self.pending), np.float64).sum(axis=0)
        sums = {name: Sum(*halves) for name, halves in zip(self.names, totals, strict=True)}
        tokens = sums.get(f"{self.player}/entropy", sums[f"{self.player}/loss"]).weight
        rate = float(tokens) / (time.monotonic() - self.since)
        values = {name: mean(value) for name, value in sums.items()} | {"tokens_per_second": rate}
        if math.isfinite(self.mfu_per_rate):
            values["mfu"] = rate * self.mfu_per_rate
        return values


@jax.jit
def pack(sums: Sequence[Sum]) -> Float[Array, "names halves"]:
    """All of them in one array: to bring an array to the host costs much the same whatever its size."""
    return jnp.asarray(sums, jnp.float32)


class Profile:
    """A trace of steps first … last - 1, by jax.profiler, for TensorBoard or Perfetto. steps: (first, last), or () for
    no trace."""

    def __init__(self, folder: Path, steps: Sequence[int]):
        self.folder = folder
        self.steps = tuple(steps)
        self.tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def at(self, step: int) -> None:
        """Before a step: begins or ends the trace where it is time."""
        if self.steps and step == self.steps[0]:
            jax.profiler.start_trace(self.folder)
            self.tracing = True
        elif self.tracing and step >= self.steps[1]:
            self.stop()

    def stop(self) -> None:
        """Ends the trace, if there is one."""
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()
