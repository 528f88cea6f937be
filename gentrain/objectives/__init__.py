"""Objectives: what is minimised, one file each, found by its name. An objective file has `build(config, spec) ->
Objective`."""

from typing import Any, Protocol

from gentrain.metrics import Sum
from gentrain.models import DensityModel, SequenceModel

Params = Any  # nested dict of arrays
Carry = Any  # pytree of arrays


class Objective(Protocol):
    """A game of one or more players, each with its own parameters and loss; a frozen dataclass of models and numbers.

    players: who moves in one step, in order; a name may repeat, as in ("critic",) * 4 + ("generator",). The generator
    is the player that is evaluated and sampled from, and model is what turns its parameters into outputs.
    splittable: whether the loss is a sum over examples, so that microbatches and shards may be added up.
    """

    model: SequenceModel | DensityModel
    players: tuple[str, ...]
    splittable: bool

    def init(self, key, batch) -> tuple[dict[str, Params], Carry]:
        """The parameters of each player, and what passes between steps without a gradient. Batch is for its shapes."""
        ...

    def loss(self, player: str, params: dict[str, Params], carry, batch, key, step) -> tuple[Sum, dict[str, Sum]]:
        """What `player` minimises over params[player] alone, and what else to report.

        key is the same for all microbatches and devices: draws for an example come from fold_in(key, batch["row"]).
        """
        ...

    def remember(self, carry: Carry, metrics: dict[str, Sum], params: dict[str, Params]) -> Carry:
        """The carry after a step, from sums over the whole batch and the new parameters; a moving-average baseline, for
        instance."""
        ...
