"""Where the parameters of players come from, if not from the seed: other runs, by config.init_from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gentrain import pretrained, worlds
from gentrain import program as programs
from gentrain.datasets import fetch, published_tokenizer, tokenizers
from gentrain.datasets.build import TOKENIZER, Data
from gentrain.errors import CheckpointError, ConfigError
from gentrain.objectives.base import Objective
from gentrain.program import Program
from gentrain.published import families
from gentrain.runtime.checkpoint import read_meta, restore_params
from gentrain.update import TrainState

Params = dict[str, Any]  # by player
WORLD = "world"  # in place of a workdir: the law that the data are drawn from
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


def init_from(
    config: ConfigDict, program: Program, data: Data, fresh: TrainState, workdir: Path
) -> tuple[Params, dict[str, Origin], list[str]]:
    """Parameters by player, the origins of frozen ones, and lines to be said.

    config: reads init_from and init_from_vocab; fresh: the state of the seed; workdir: this run's, with its tokenizer.
    Raises ConfigError for a frozen player that nothing gives and for a run with another tokenizer, CheckpointError
    where the other run has no such player or one of another shape.
    """
    wanted = program.state
    shapes = wanted.params | wanted.frozen
    spared = program.objective.spared
    triples, required = parse_init_from(config.init_from, [*shapes, *spared])
    triples = [triple for triple in triples if triple[0] not in spared]
    others = [triple for triple in triples if families.is_published(triple[1]) or triple[1] == WORLD]
    from_runs = [triple for triple in triples if triple not in others]
    params, origins, lines = of_runs(config, program, data, fresh, workdir, (from_runs, required))
    for player, name, source in others:
        if name == WORLD:
            params[player], line = of_world(config, player, shapes[player]), f"{player}: the law of {config.data.name}"
            origin: Origin = {"workdir": WORLD, "player": source, "step": 0, "digest": ""}
        elif required or player == "generator":
            jax.tree.map(lambda leaf: leaf.delete(), (fresh.params | fresh.frozen)[player])  # or both would be held
            params[player], origin, line = from_published(config, program, data, player, name)
        else:
            continue
        lines.append(line)
        origins |= {player: origin} if player in wanted.frozen else {}
    for player in wanted.frozen:
        if player not in params:
            example = f"(({player!r}, 'runs/x', 'generator'),)"
            what = f"{player} learns adapters alone" if player in wanted.params else f"player {player!r} is frozen"
            raise ConfigError(f"{what}: expected init_from to say where it is from, as {example}")
    for player, asked in data.summary.get("asked", {}).items():
        if player in origins and origins[player]["digest"] != asked["digest"]:
            where = [f"{one['workdir']} at step {one['step']}" for one in (asked, origins[player])]
            raise ConfigError(
                f"data.taught is what {where[0]} says, and init_from gives {player!r} {where[1]}: let both be one"
            )
    copies, more = stand_ins(params, wanted, program.objective)
    return params | copies, origins, lines + more


def of_runs(
    config: ConfigDict,
    program: Program,
    data: Data,
    fresh: TrainState,
    workdir: Path,
    asked: tuple[list[tuple[str, str, str]], bool],
) -> tuple[Params, dict[str, Origin], list[str]]:
    """What other runs give, as init_from; asked: what parse_init_from says of them."""
    wanted, (triples, required), if_other = program.state, asked, config.init_from_vocab
    shapes = wanted.params | wanted.frozen
    sources_by_workdir: dict[str, dict[str, str]] = {}
    for player, other, source in triples:
        sources_by_workdir.setdefault(other, {})[player] = source
    params: Params = {}
    origins: dict[str, Origin] = {}
    lines = []
    for other, sources in sources_by_workdir.items():
        step, meta = read_meta(_checkpoints(other))
        digest = meta.get("data", {}).get(TOKENIZER)
        shared, there, note = None, shapes, ""
        if digest != data.summary["digests"].get(TOKENIZER):
            shared = share(if_other, Path(other), digest, workdir)
            there = with_vocab(config, program, data, shared.before)
            note = f"; of {shared.now - 1} symbols {len(shared.pairs) - 1} are in its vocabulary, the rest is new"
        if frozen := sorted(sources.keys() - there.keys()):
            raise ConfigError(f"init_from: player {frozen[0]!r} is frozen, which needs the tokenizer of {other}")
        expected = {player: there[player] for player in sources}
        _, restored, digest = restore_params(_checkpoints(other), expected, sources, required=required, step=step)
        if shared is not None:
            larger = with_vocab(config, program, data, shared.now + 1)
            restored = copy_shared(shared, restored, fresh.params, larger)
        params |= restored
        lines.append(f"starting from the parameters of {other} at step {step}: {', '.join(restored)}{note}")
        for player in restored.keys() & wanted.frozen.keys():
            origins[player] = {"workdir": other, "player": sources[player], "step": step, "digest": digest}
    return params, origins, lines


def from_published(
    config: ConfigDict, program: Program, data: Data, player: str, name: str
) -> tuple[Params, Origin, str]:
    """The parameters of a published model for a player, where they are from, and a line to be said.

    Raises ConfigError for a model that does not fit the network, or whose tokens stand for something else.
    """
    published = fetch.published(name)
    tokenizer = None if published.tokenizer is None else tokenizers.digest(published_tokenizer.of(published))
    here = data.summary["digests"].get(TOKENIZER)
    if here is not None and here != tokenizer:
        raise ConfigError(f"init_from: the tokens of {name} are not those of the data: set data.tokenizer={name!r}")
    wanted = program.state
    network = config["model" if player == "generator" else player]
    params = pretrained.restore(published, network, (wanted.params | wanted.frozen)[player])
    digest = pretrained.digest(published) if player in wanted.frozen else ""  # who learns is saved
    origin = {"workdir": name, "player": "generator", "step": 0, "digest": digest}
    return params, origin, f"starting from the parameters of {name}: {player}"


def of_world(config: ConfigDict, player: str, shapes: Any) -> Params:
    """The law of the data's world, as the table of conditionals that a tabular model has.

    Raises ConfigError for data from no world of sequences, and for a network that is no table.
    """
    world, section = worlds.of(config, f"init_from={WORLD!r}"), "model" if player == "generator" else player
    if not isinstance(world, worlds.SequenceWorld) or list(shapes) != ["table"]:
        raise ConfigError(f"init_from={WORLD!r} is the table of a law of sequences: expected {section}.name='tabular'")
    sizes = ((world.vocab,) * t for t in range(1, world.length))
    prefixes: list[np.ndarray] = [
        np.zeros((1, 0), np.int32),
        *(np.indices(size).reshape(len(size), -1).T for size in sizes),
    ]
    table = np.concatenate([world.next_log_probs(prefix) for prefix in prefixes])
    wanted = shapes["table"]
    return {"table": jax.device_put(jnp.asarray(table, wanted.dtype), wanted.sharding)}


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


class Shared(NamedTuple):
    """What two vocabularies have in common. before, now: how many tokens the other and this one have, their ends
    counted; pairs: (token there, token here) of the same symbol, the end last."""

    before: int
    now: int
    pairs: list[tuple[int, int]]


def share(if_other: str, other: Path, digest: str | None, workdir: Path) -> Shared:
    """What this run's vocabulary has in common with the one in the workdir `other`, whose tokenizer has this digest.

    if_other: config.init_from_vocab. Raises ConfigError unless it is 'shared' and both have a tokenizer of one kind.
    """
    if if_other != "shared":
        raise ConfigError(
            f"init_from: the tokens of {other} stand for something else, its tokenizer is another one; copy its"
            f" {tokenizers.JSON} (and .model) into {workdir}, or set init_from_vocab='shared'"
        )
    there, here = tokenizers.find(other), tokenizers.find(workdir)
    learned = here is not None and here.kind in tokenizers.KINDS
    if there is None or here is None or not learned or there.kind != here.kind or tokenizers.digest(there) != digest:
        raise ConfigError(f"init_from_vocab='shared': {other} has not its checkpoint's tokenizer, of the same kind")
    numbers = {symbol: token for token, symbol in enumerate(there.alphabet)}
    pairs = [(numbers[symbol], token) for token, symbol in enumerate(here.alphabet) if symbol in numbers]
    return Shared(there.vocab, here.vocab, [*pairs, (there.end, here.end)])


def with_vocab(config: ConfigDict, program: Program, data: Data, vocab: int) -> dict[str, Any]:
    """The shapes and shardings of the parameters of players that learn, were there so many tokens."""
    spec = replace(data.spec, vocab=vocab, end=vocab - 1)
    return programs.build(config, spec, program.mesh).state.params


def copy_shared(shared: Shared, given: Any, fresh: Any, larger: Any) -> Any:
    """The given parameters, in which the symbols that are not shared are as in the fresh ones.

    A dimension counts tokens if it differs in `larger`, the shapes with one token more. What such a dimension has
    beyond the tokens, as a row for the start, is shared too.
    """

    def copy(old: jax.Array, new: jax.Array, grown: jax.ShapeDtypeStruct) -> jax.Array:
        axes = [axis for axis in range(new.ndim) if grown.shape[axis] != new.shape[axis]]
        if not axes:
            return old
        front, there, here = range(len(axes)), [], []
        for axis in axes:
            beyond = np.arange(new.shape[axis] - shared.now)
            there.append(np.concatenate([[pair[0] for pair in shared.pairs], shared.before + beyond]))
            here.append(np.concatenate([[pair[1] for pair in shared.pairs], shared.now + beyond]))
        taken = jnp.moveaxis(old, axes, front)[np.ix_(*there)]
        return jnp.moveaxis(jnp.moveaxis(new, axes, front).at[np.ix_(*here)].set(taken), front, axes)

    def copy_all(given, fresh):
        return jax.tree.map(copy, given, fresh, {player: larger[player] for player in given})

    fresh = {player: fresh[player] for player in given}
    return jax.jit(copy_all, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, fresh))(given, fresh)


def again_published(config: ConfigDict, player: str, origin: Origin, shapes: Any) -> Params:
    """A frozen player's parameters once more. Raises CheckpointError where the published model is another one now."""
    published = fetch.published(origin["workdir"])
    if pretrained.digest(published) != origin["digest"]:
        raise CheckpointError(f"{origin['workdir']} is not the model that {player!r} started from")
    return pretrained.restore(published, config["model" if player == "generator" else player], shapes)


def restore_frozen(
    config: ConfigDict, origins: dict[str, Origin], wanted: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Origin]]:
    """The parameters of frozen players, from the very checkpoints that a run started with, and these origins again.

    wanted: shapes and shardings by player. Raises CheckpointError where one of the checkpoints is not there any more,
    or is another one.
    """
    params: dict[str, Any] = {}
    for player, shapes in wanted.items():
        origin = origins[player]
        if origin["workdir"] == WORLD:
            params[player] = of_world(config, player, shapes)
            continue
        if families.is_published(origin["workdir"]):
            params[player] = again_published(config, player, origin, shapes)
            continue
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
