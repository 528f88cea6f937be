"""Where the parameters of players come from, if not from the seed: other runs, by config.init_from."""

from pathlib import Path
from typing import Any

from gentrain.errors import CheckpointError, ConfigError
from gentrain.runtime.checkpoint import restore_params
from gentrain.update import TrainState

Origin = dict[str, Any]  # workdir, player, step and digest of the checkpoint that gave a frozen player


def triples(init_from: Any, players: list[str]) -> tuple[list[tuple[str, str, str]], bool]:
    """(player, workdir, its player) of config.init_from, and whether each of them has to be there.

    A workdir alone gives all players of the same name that it has. Raises ConfigError for anything else.
    """
    if isinstance(init_from, str):
        return [(player, init_from, player) for player in players if init_from], False
    for triple in init_from:
        if not (
            isinstance(triple, tuple | list) and len(triple) == 3 and all(isinstance(word, str) for word in triple)
        ):
            raise ConfigError(f"init_from has {triple!r}: expected a workdir, or (player, workdir, its player) triples")
        if triple[0] not in players:
            raise ConfigError(f"init_from names player {triple[0]!r}: expected one of {', '.join(players)}")
    return [tuple(triple) for triple in init_from], True


def init_from(wanted_from: Any, wanted: TrainState) -> tuple[dict[str, Any], dict[str, Origin], list[str]]:
    """Parameters by player, the origins of frozen ones, and what to say of it.

    wanted: shapes and shardings. Raises ConfigError for a frozen player that nothing gives, CheckpointError where the
    other run has no such player or one of another shape.
    """
    every_player = wanted.params | wanted.frozen
    params: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    lines = []
    chosen, required = triples(wanted_from, list(every_player))
    by_workdir: dict[str, dict[str, str]] = {}
    for player, workdir, source in chosen:
        by_workdir.setdefault(workdir, {})[player] = source
    for workdir, sources in by_workdir.items():
        shapes = {player: every_player[player] for player in sources}
        step, found, digest = restore_params(Path(workdir) / "checkpoints", shapes, sources, required=required)
        params |= found
        lines.append(f"starting from the parameters of {workdir} at step {step}: {', '.join(found)}")
        for player in found.keys() & wanted.frozen.keys():
            origins[player] = {"workdir": workdir, "player": sources[player], "step": step, "digest": digest}
    for player in wanted.frozen:
        if player not in params:
            example = f"(({player!r}, 'runs/x', 'generator'),)"
            raise ConfigError(f"player {player!r} is frozen: expected init_from to say where it is from, as {example}")
    return params, origins, lines


def restore_frozen(origins: dict[str, Origin], wanted: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Origin]]:
    """The parameters of frozen players, from the very checkpoints that a run started with.

    Raises CheckpointError where one of them is not there any more, or is another one.
    """
    params: dict[str, Any] = {}
    for player, shapes in wanted.items():
        origin = origins[player]
        directory = Path(origin["workdir"]) / "checkpoints"
        _, found, digest = restore_params(
            directory, {player: shapes}, {player: origin["player"]}, required=True, step=origin["step"]
        )
        if digest != origin["digest"]:
            raise CheckpointError(
                f"{directory / str(origin['step'])} is not the checkpoint that {player!r} started from"
            )
        params |= found
    return params, origins
