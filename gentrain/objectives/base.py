"""What an objective is: a game of one or more players, each with its own parameters and loss."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import plugins, sharding
from gentrain.datasets.spec import Spec
from gentrain.models.base import DensityModel, Params, Sampler, SequenceModel
from gentrain.sums import Sum

Carry = Any  # pytree of arrays
Batch = Mapping[str, Array]  # see gentrain/datasets/build.py
Loss = tuple[Sum, dict[str, Sum]]  # what is minimised, and what else is reported


class Alarm(NamedTuple):
    """A sign that a run goes wrong.

    shows: whether it shows in the means since the last line of the log. text: what to say then, formatted with them.
    patience: lines of the log in a row in which it shows before it is said.
    """

    name: str
    shows: Callable[[Mapping[str, float]], bool]
    text: str
    patience: int = 2


class Optimum(NamedTuple):
    """Where an objective ends in a known world of sequences: the table of Q*, (vocab,)*length.

    name: 'fixed_point' or 'minimiser'. excess_prior: the class prior pi for which a run's JS_pi / (pi (1 - pi)) is
    compared with that of Q*, or None.
    """

    name: str
    table: np.ndarray
    excess_prior: float | None = None


class Objective:
    """A subclass is a frozen dataclass of models and typed options.

    model: what turns the generator's parameters into outputs; the generator is the player that is evaluated.
    players: who moves in one step, in order; a name may repeat, as in ("critic",) * 4 + ("generator",).
    frozen: players whose parameters another run gives (config.init_from) and nothing changes.
    spared: players that init_from may give and this run does without.
    teacher: the model of the frozen player `teacher`; only where there is one.
    splittable: whether the loss is a sum over examples, so that microbatches and shards may be added up.
    alarms: signs that a run of this objective goes wrong.
    """

    model: SequenceModel | DensityModel | Sampler
    players: tuple[str, ...] = ("generator",)
    frozen: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    teacher: SequenceModel
    splittable: bool = True
    alarms: tuple[Alarm, ...] = ()

    def init(self, key: Array, batch: Batch) -> tuple[dict[str, Params], Carry]:
        """The parameters of each player, and what passes between steps without a gradient; batch is for its shapes."""
        return {"generator": self.model.init(key)}, {}

    def draw(self, params: dict[str, Params], batch: Batch, key: Array, step: Array) -> dict[str, Array]:
        """Arrays by row that the batch gets beside its own, from the parameters before anyone has moved in a step."""
        return {}

    def loss(self, player: str, params: dict[str, Params], carry: Carry, batch: Batch, key: Array, step: Array) -> Loss:
        """What `player` minimises over params[player] alone, and what else is reported.

        key is the same for all microbatches and devices: draws for an example come from fold_in(key, batch["row"]).
        """
        raise NotImplementedError

    def rate(self, player: str) -> float:
        """The player's learning rate, by that of the run."""
        return 1.0

    def stand_in(self, player: str) -> str | None:
        """The player as a copy of which this one starts where other runs give that one and not this (config.init_from).

        None: the player then starts from the seed.
        """
        return None

    def remember(self, carry: Carry, metrics: dict[str, Sum], params: dict[str, Params]) -> Carry:
        """The carry after a step, from sums over the whole batch and the new parameters."""
        return carry

    def teach(self, params: dict[str, Params], batch: Batch, top_k: int) -> dict[str, Array]:
        """What a teacher says of each position, (rows, length, n) by name, to be written down and read beside the batch
        in place of asking it: its top_k likeliest tokens, or for 0 what it makes logits of. {} without a teacher."""
        return {}

    def check_ready(self, params: dict[str, Params], batch: Callable[[], Batch], mesh: Mesh) -> None:
        """Called before the first step of each start, with what makes its batch; raises ConfigError where that step is
        not to be done."""

    def optimum(self, world: Any) -> Optimum | None:
        """Where theory says that a run in this world ends; None where it says nothing in closed form."""
        return None


def generator_of(config: ConfigDict, spec: Spec, section: str = "model", player: str = "generator") -> Any:
    """The model of a network's section, whose parameters are a player's. One of sequences gathers them by the rules of
    the mesh: see sharding.gather."""
    model = plugins.load("models", config[section].name).build(config[section], spec)
    if not isinstance(model, SequenceModel):
        return model
    return model._replace(gather=partial(sharding.gather, rules=config.mesh.rules, name=f"params/{player}"))
