"""Where the parameters of players come from, if not from the seed: other runs, by config.init_from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gentrain.datasets import tokenizers
from gentrain.errors import CheckpointError, ConfigError
from gentrain.runtime.checkpoint import read_meta, restore_params
from gentrain.update import TrainState

Origin = dict[str, Any]  # workdir, player, step and digest of the checkpoint that gave a frozen player


class Vocabulary(NamedTuple):
    """What the tokens of a run stand for.

    digest: of its tokenizer; None without one. workdir: where that is kept. state_with: number of tokens -> the shapes
    and shardings of the state, were there that many.
    """

    digest: str | None
    workdir: Path
    state_with: Callable[[int], TrainState]


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


def init_from(
    config: ConfigDict, fresh: TrainState, wanted: TrainState, vocabulary: Vocabulary
) -> tuple[dict[str, Any], dict[str, Origin], list[str]]:
    """Parameters by player, the origins of frozen ones, and lines to be said.

    config: reads init_from and init_from_vocab; fresh: the state of the seed; wanted: its shapes and shardings. Raises
    ConfigError for a frozen player that nothing gives and for a run with another tokenizer, CheckpointError where the
    other run has no such player or one of another shape.
    """
    shapes = wanted.params | wanted.frozen
    triples, required = parse_init_from(config.init_from, list(shapes))
    sources_by_workdir: dict[str, dict[str, str]] = {}
    for player, workdir, source in triples:
        sources_by_workdir.setdefault(workdir, {})[player] = source
    params: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    lines = []
    for workdir, sources in sources_by_workdir.items():
        step, meta = read_meta(_checkpoints(workdir))
        other = meta.get("data", {}).get("tokenizer")
        shared = None if other == vocabulary.digest else share(config, workdir, other, vocabulary)
        there = shapes if shared is None else vocabulary.state_with(shared.before).params
        if unshared := sources.keys() - there.keys():
            raise ConfigError(f"init_from: frozen player {min(unshared)!r} needs the tokenizer of {workdir}")
        player_shapes = {player: there[player] for player in sources}
        _, restored, digest = restore_params(
            _checkpoints(workdir), player_shapes, sources, required=required, step=step
        )
        if shared is not None:
            own = {player: fresh.params[player] for player in restored}
            restored = copy_shared(own, restored, shared, vocabulary)
        params |= restored
        lines.append(f"starting from the parameters of {workdir} at step {step}: {', '.join(restored)}")
        if shared is not None:
            lines[-1] += f"; {len(shared.pairs) - 1} of {shared.now - 1} symbols are in its vocabulary, the rest is new"
        for player in restored.keys() & wanted.frozen.keys():
            origins[player] = {"workdir": workdir, "player": sources[player], "step": step, "digest": digest}
    for player in wanted.frozen:
        if player not in params:
            example = f"(({player!r}, 'runs/x', 'generator'),)"
            raise ConfigError(f"player {player!r} is frozen: expected init_from to say where it is from, as {example}")
    return params, origins, lines


class Shared(NamedTuple):
    """What two vocabularies have in common. before, now: how many tokens the other and this one have, their ends
    counted; pairs: (token there, token here) of the same symbol, the end last."""

    before: int
    now: int
    pairs: list[tuple[int, int]]


def share(config: ConfigDict, workdir: str, digest: str | None, vocabulary: Vocabulary) -> Shared:
    """What this run's vocabulary has in common with that of the run in workdir, whose tokenizer has this digest.

    Raises ConfigError unless config.init_from_vocab is 'shared' and both have a tokenizer of one kind.
    """
    if config.init_from_vocab != "shared":
        raise ConfigError(
            f"init_from: the tokens of {workdir} stand for something else, its tokenizer is another one; copy its"
            f" {tokenizers.JSON} (and .model) into {vocabulary.workdir}, or set init_from_vocab='shared'"
        )
    there, here = (tokenizers.find(folder) for folder in (Path(workdir), vocabulary.workdir))
    if there is None or here is None or there.kind != here.kind or tokenizers.digest(there) != digest:
        raise ConfigError(f"init_from_vocab='shared': {workdir} has not the tokenizer of its checkpoint, of one kind")
    numbers = {symbol: token for token, symbol in enumerate(there.alphabet)}
    pairs = [(numbers[symbol], token) for token, symbol in enumerate(here.alphabet) if symbol in numbers]
    return Shared(there.symbols + 1, here.symbols + 1, [*pairs, (there.symbols, here.symbols)])


def copy_shared(fresh: Any, given: Any, shared: Shared, vocabulary: Vocabulary) -> Any:
    """The fresh parameters, with what stands for a shared token taken from the given ones, and all else of them too.

    A dimension counts tokens if it grows with their number; what it has beyond them, as a row for the start, is shared.
    """
    shapes = {player: params for player, params in vocabulary.state_with(shared.now + 1).params.items()}
    larger = {player: shapes[player] for player in fresh}

    def copy(new: jax.Array, old: jax.Array, grown: jax.ShapeDtypeStruct) -> jax.Array:
        axes = [axis for axis in range(new.ndim) if grown.shape[axis] != new.shape[axis]]
        if not axes:
            return old
        front = range(len(axes))
        there, here = [], []
        for axis in axes:
            beyond = np.arange(new.shape[axis] - shared.now)
            there.append(np.concatenate([[pair[0] for pair in shared.pairs], shared.before + beyond]))
            here.append(np.concatenate([[pair[1] for pair in shared.pairs], shared.now + beyond]))
        taken = jnp.moveaxis(old, axes, front)[np.ix_(*there)]
        return jnp.moveaxis(jnp.moveaxis(new, axes, front).at[np.ix_(*here)].set(taken), front, axes)

    placed = jax.tree.map(lambda leaf: leaf.sharding, fresh)
    return jax.jit(lambda new, old: jax.tree.map(copy, new, old, larger), out_shardings=placed)(fresh, given)


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
