"""Asks a config's teacher once about every row of train, and writes down what a student learns from:

    python -m launch.teach --config configs/x.py --out DIR [--keep=hidden|top_k:K] [--workdir RUN] [--config.KEY=VALUE]

and then `python -m launch --config configs/x.py --config.data.taught=DIR`. The teacher is who init_from says.

  --keep=hidden    (the default) what it makes logits of: any divergence can be had of that with the teacher's last
                   layer, so the teacher is still loaded. 4 bytes (2 in bfloat16) x its width a token
  --keep=top_k:K   log-probabilities of its K likeliest tokens; the teacher is then not loaded any more, and the
                   estimators tail_bucket, truncated and renormalised are possible. 8 bytes x K a token
  --workdir        of the run that will learn, whose tokenizer is taken

Stopped or killed, the same command goes on where it stood; it writes anew what is damaged.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from gentrain.errors import ConfigError, Stopped, explain
from gentrain.runtime import signals
from launch import cli

if TYPE_CHECKING:
    from gentrain.datasets.build import Data
    from gentrain.datasets.taught import Writer


def main(argv: Sequence[str] | None = None) -> int:
    """The command as a function; returns the exit code."""
    parser = argparse.ArgumentParser("python -m launch.teach", description=__doc__, add_help=True, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", default="hidden")
    arguments, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    try:
        top_k = top_k_of(arguments.keep)
        command = cli.parse(["launch", *rest])
        for note in command.notes:
            cli.say(note)
        if command.config.sweep:
            raise ConfigError(
                "a teacher is asked for one run: add --config.sweep='()', or name the folder of a variant"
            )
        with signals.Stop() as stop:
            teach(command, arguments.out.absolute(), top_k, stop)
    except Exception as error:
        if (known := explain(error)) is None:  # a full disk is one
            raise
        cli.say(f"{type(known).__name__}: {known}")
        return known.exit_code
    return 0


def top_k_of(keep: str) -> int:
    """'top_k:16' -> 16, 'hidden' -> 0. Raises ConfigError."""
    kind, _, count = keep.partition(":")
    if keep == "hidden" or (kind == "top_k" and count.isdecimal() and int(count)):
        return int(count or 0)
    raise ConfigError(f"--keep={keep}: expected hidden, or top_k:K with K tokens, as top_k:64")


class Teacher(NamedTuple):
    """ask(params, batch) -> the arrays beside it, rows over the mesh; arrays: what they are, as spec.Beside; asked:
    where the parameters are from, by player."""

    ask: Callable
    params: dict[str, Any]
    mesh: Any
    arrays: list[tuple[str, int, str]]
    asked: dict[str, Any]


def teach(command: cli.Command, out: Path, top_k: int, stop: signals.Stop) -> None:
    """Writes the folder, or the rest of it. Raises ConfigError for a config without a teacher and for the folder of
    other data or of another teacher, Stopped on a signal."""
    config = command.config
    config.data.taught = ""
    cli.say(f"reading {config.data.name}")
    from gentrain.datasets import build, store, taught
    from gentrain.runtime.lock import lock

    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(store.cache() / "compiled"))
    data = build.build(config, command.workdir if command.flags.workdir else None)
    rows = build.rows_of_train(config, data)
    cli.say("reading the teacher")
    teacher = teacher_of(config, data, command.workdir, top_k)
    note = {**rows, "arrays": teacher.arrays, "asked": teacher.asked}
    of_row = taught.bytes_of_row(note)
    batches = -(-taught.CHUNK // (of_row * config.data.batch_size))
    with lock(out):
        writer, total = taught.Writer(out, note, batches * config.data.batch_size), taught.rows_of(note)
        cli.say(f"{out}: {total:,} rows, {total * of_row / 1e9:,.3f} GB; {writer.done:,} rows are there")
        with stop.deferred():
            write(config, data, teacher, writer, stop)
    cli.say(f"written: {out}; it is learned from with --config.data.taught={out}")


def write(config: ConfigDict, data: "Data", teacher: Teacher, writer: "Writer", stop: signals.Stop) -> None:
    """Asks about the rows that are left, and writes a chunk of answers whenever there is one. Raises Stopped."""
    from gentrain import sharding
    from gentrain.datasets.prefetch import prefetch

    size, split, total = config.data.batch_size, data.split("train"), data.summary["examples"]

    def ask(number: int) -> dict[str, Any]:
        return teacher.ask(teacher.params, sharding.put(split.batch(number), teacher.mesh, size))

    parts: list[dict[str, np.ndarray]] = []
    answers = prefetch(ask, -(-writer.done // size), split.batches, config.data.prefetch)
    with tqdm(total=total, initial=writer.done, unit=" rows", file=sys.stderr) as bar, closing(answers):
        for number, arrays in answers:
            left = total - number * size
            parts.append({name: np.asarray(array)[:left] for name, array in arrays.items()})
            if len(parts) * size == writer.note["chunk"] or left <= size:
                writer.add({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
                parts.clear()
            bar.update(min(size, left))
            if stop.requested:
                raise Stopped(f"stopped; {writer.done:,} of {total:,} rows are written, the same command goes on there")


def teacher_of(config: ConfigDict, data: "Data", workdir: Path, top_k: int) -> Teacher:
    """The teacher of a config. Raises ConfigError where it has none, or where its vocabulary has no top_k tokens."""
    import jax

    from gentrain import players, program, sharding

    if top_k > data.spec.vocab:
        raise ConfigError(f"--keep=top_k:{top_k}: expected at most the {data.spec.vocab} tokens that there are")
    built = program.build(config, data.spec)
    teach = functools.partial(built.objective.teach, top_k=top_k)
    with sharding.inside(built.mesh):
        shapes = jax.eval_shape(teach, built.state.frozen, built.batch) if built.objective.frozen else {}
    if not shapes:
        raise ConfigError(f"objective.name={config.objective.name!r} has no teacher: expected one that learns from one")
    params, asked, said = players.init_from(config, built, data, built.init(), workdir)
    for line in said:
        cli.say(line)
    ask = sharding.compile_on(built.mesh, teach, sharding.batch_sharding(built.mesh))
    frozen = {player: params[player] for player in built.objective.frozen}
    arrays = [(name, shape.shape[-1], shape.dtype.name) for name, shape in shapes.items()]
    return Teacher(ask, frozen, built.mesh, arrays, {player: asked[player] for player in frozen})


if __name__ == "__main__":
    sys.exit(main())
