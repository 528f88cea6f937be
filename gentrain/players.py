"""Where the parameters of players come from, if not from the seed: other runs, by config.init_from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gentrain.errors import CheckpointError, ConfigError
from gentrain.objectives.base import Objective
from gentrain.runtime.checkpoint import restore_params
from gentrain.update import TrainState

Params = dict[str, Any]  # by player
Origin = dict[str, Any]  # workdir, player, step and digest of the checkpoint that gave a frozen player


def parse_init_from(init_from: Any, players: Sequence[str]) -> tuple[list[tuple[str, str, str]], bool]:
    """(player, workdir, its player) triples of config.init_from, and whether each of them has to be there.

    A workdir alone gives all players of the same name that it has. Raises ConfigError for anything else.
    """
    if isinstance(init_from, str):
        return [(player, init_from, player) for player in players if init_from], False
    for triple in init_from:
        words = triple if isinstance(triple, tuple | list) else ()
        if len(words) != 3 or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"init_from has {triple!r}: expected a workdir, or (player, workdir, its player) triples")
        if triple[0] not in players:
            raise ConfigError(f"init_from names player {triple[0]!r}: expected one of {', '.join(players)}")
    return [tuple(triple) for triple in init_from], True


def init_from(option: Any, wanted: TrainState, objective: Objective) -> tuple[Params, dict[str, Origin], list[str]]:
    """Parameters by player, the origins of frozen ones, and lines to be said.

    option: config.init_from; wanted: shapes and shardings; objective: who may start as a copy of whom. Raises
    ConfigError for a frozen player that nothing gives, CheckpointError where the other run has no such player or one of
    another shape.
    """
    shapes = wanted.params | wanted.frozen
    triples, required = parse_init_from(option, list(shapes))
    sources_by_workdir: dict[str, dict[str, str]] = {}
    for player, workdir, source in triples:
        sources_by_workdir.setdefault(workdir, {})[player] = source
    params: Params = {}
    origins: dict[str, Origin] = {}
    lines = []
    for workdir, sources in sources_by_workdir.items():
        player_shapes = {player: shapes[player] for player in sources}
        step, restored, digest = restore_params(_checkpoints(workdir), player_shapes, sources, required=required)
        params |= restored
        lines.append(f"starting from the parameters of {workdir} at step {step}: {', '.join(restored)}")
        for player in restored.keys() & wanted.frozen.keys():
            origins[player] = {"workdir": workdir, "player": sources[player], "step": step, "digest": digest}
    for player in wanted.frozen:
        if player not in params:
            example = f"(({player!r}, 'runs/x', 'generator'),)"
            raise ConfigError(f"player {player!r} is frozen: expected init_from to say where it is from, as {example}")
    copies, more = stand_ins(params, wanted, objective)
    return params | copies, origins, lines + more


def stand_ins(given: Params, wanted: TrainState, objective: Objective) -> tuple[Params, list[str]]:
    """Copies of given players for those that learn, are not given, and have the same parameters; lines to be said."""
    copies, lines = {}, []
    for player, shapes in wanted.params.items():
        source = objective.stand_in(player)
        if player in given or source is None or source not in given:
            continue
        if _kinds(given[source]) == _kinds(shapes):
            copies[player] = jax.tree.map(jnp.copy, given[source])
            lines.append(f"the {player} starts as a copy of the {source}")
        else:
            line = f"warning: the {player} starts from scratch: with the name, width and layers of the {source}"
            lines.append(f"{line} it would start as a copy")
    return copies, lines


def _kinds(params: Any) -> Any:
    """The tree with the shape and type of each leaf."""
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)


def restore_frozen(origins: dict[str, Origin], wanted: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Origin]]:
    """The parameters of frozen players, from the very checkpoints that a run started with, and these origins again.

    wanted: shapes and shardings by player. Raises CheckpointError where one of the checkpoints is not there any more,
    or is another one.
    """
    params: dict[str, Any] = {}
    for player, shapes in wanted.items():
        origin = origins[player]
        directory = _checkpoints(origin["workdir"])
        sources = {player: origin["player"]}
        _, restored, digest = restore_params(directory, {player: shapes}, sources, required=True, step=origin["step"])
        if digest != origin["digest"]:
            path = directory / str(origin["step"])
            raise CheckpointError(f"{path} is not the checkpoint that {player!r} started from")
        params |= restored
    return params, origins


def _checkpoints(workdir: str) -> Path:
    return Path(workdir) / "checkpoints"
