"""Steps of a run, done once more from one of its checkpoints: they end in the same bits, or something has changed."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from gentrain import sums, train
from gentrain.errors import CheckpointError
from gentrain.options.identity import check_same_run
from gentrain.sharding import path_name


def replay(config: ConfigDict, workdir: Path, first: int, end: int, say: Callable[[str], None] = print) -> None:
    """Says the losses of the steps first..end-1, and whether they end in the checkpoint of step `end`, if there is one.

    The run itself stays as it is. Raises CheckpointError where there is no checkpoint of step `first`, or where the
    steps end in other bits than they did.
    """
    check_same_run(config, workdir / "config.json")
    run = train.build(config, workdir)
    state, _, meta = train.restored(run, step=first)
    put = train.put_batch(run, [tuple(pair) for pair in meta["left_out"]])
    for step in range(first, end):
        state, totals = run.program.update(state, put(step))
        means = {player: sums.mean(totals[f"{player}/loss"]) for player in dict.fromkeys(run.program.objective.players)}
        say(f"step {step}: " + ", ".join(f"{player} loss {mean:.9g} ({mean.hex()})" for player, mean in means.items()))
    if not (workdir / "checkpoints" / str(end)).exists():
        return say(f"there is no checkpoint of step {end} to compare with")
    saved, *_ = train.restored(run, step=end)
    if different := differences(state, saved):
        raise CheckpointError(
            f"steps {first} to {end} end in other bits than the checkpoint of step {end}: {', '.join(different[:3])}"
            f" and {max(len(different) - 3, 0)} more; a device, the software or the code is not what it was"
        )
    say(f"the same bits as the checkpoint of step {end}")


def differences(one: object, other: object) -> list[str]:
    """The paths of arrays that are not the same bits in two states."""
    one, other = jax.device_get((one, other))
    leaves, others = jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other)
    pairs = zip(leaves, others, strict=True)
    return [path_name(path) for (path, a), b in pairs if np.asarray(a).tobytes() != np.asarray(b).tobytes()]
