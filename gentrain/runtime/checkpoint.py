"""Checkpoints whose every file is verified before it is believed: Orbax writes them, a sha256 manifest guards them.

Orbax alone restores flipped bits without a word. So each step directory carries `manifest.json`, the size and digest of
its files, written before the atomic rename that commits the step. On disk a state is nested dicts of arrays by field
name, key or index, whatever classes it had in memory. Directories are paths of a (mounted) file system, not URLs.

Beside the state lies a checksum of each array, worked out on the devices before it was saved and again after it was
restored. So damage, partial copies, and arrays that were exchanged together with their manifest are found; see
manifest.py for what is not. What a step is made of is regular files inside its folder, or it is damaged; no code is in
it, and none is run.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from gentrain.errors import CheckpointError, ConfigError, first_line
from gentrain.runtime import manifest

_UNCOMMITTED = ".orbax-checkpoint-tmp"  # ends the name of a step directory until the rename that commits it

# Orbax logs dozens of lines a save, and whole tracebacks of what is raised here as one line, to the logger that it
# shares with all users of absl.
logging.getLogger("absl").addFilter(lambda record: "/orbax/" not in record.pathname)


class Checkpoints:
    """The checkpoints of one run, newest last; a context manager, or call `close()` before the process ends.

    Every process of the run makes the same calls in the same order. Process 0 writes and verifies the manifests.

    The `keep_last` newest stay (at least 1), multiples of `keep_every` steps (0: none), those of the last `patience`
    steps, which nothing has proved yet, the `trusted` one: the newest that later steps have proved to be sound, or the
    first, until there is one; and the step `best`, which its owner sets. With `read_only` nothing on disk is changed:
    no cleaning up, no quarantine, and `save` is an error.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        keep_last: int = 2,
        keep_every: int = 0,
        patience: int = 0,
        read_only: bool = False,
    ) -> None:
        if keep_last < 1:
            raise ConfigError(f"checkpoint.keep_last={keep_last}: at least 1 checkpoint has to stay")
        self.directory = Path(os.path.abspath(directory))
        self.read_only = read_only
        self.trusted: int | None = None
        self.best: int | None = None
        self.rewound: list[int] = []  # the steps that this run was put back to
        self._saving = -1  # the step of the newest save(), for the manifest and for errors
        if not read_only and jax.process_index() == 0:
            # A kill leaves a step half-written. Orbax's own cleaning runs in the background, where it trips over the
            # cleaning of the manager before it.
            for leftover in self.directory.glob(f"*{_UNCOMMITTED}*"):
                shutil.rmtree(leftover)
        keep: list[preservation_policy.PreservationPolicy] = [
            preservation_policy.LatestN(keep_last),
            _KeepChosen(self, patience),
        ]
        if keep_every:
            keep.append(preservation_policy.EveryNSteps(keep_every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(keep),
            # This runs on process 0, in the background, once all processes have written all files and just before the
            # rename that commits; what it raises makes the save fail.
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._write_manifest),
            read_only=read_only,
            lightweight_initialize=True,  # opening must not fail on a damaged _CHECKPOINT_METADATA
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Saves `state` (a pytree of arrays) and `meta` (small JSON) in the background; a step that is there stays.

        On return `state` has been copied and may be donated. A save still under way is waited for.
        Raises CheckpointError if that one failed or this one cannot be made.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        self._saving = step
        if self.trusted not in (steps := self.steps()):
            self.trusted = min(steps, default=step)
        leaves = _leaves(state)
        # The copy through JSON finds now what is not JSON, and is safe from changes while the background writes.
        history = {"trusted": self.trusted, "rewound": self.rewound}
        description = {"meta": dict(meta), "leaves": _kinds(leaves), "sums": manifest.checksums(leaves), **history}
        description = json.loads(json.dumps(description))
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(_nested(leaves)),
            meta=ocp.args.JsonSave(description),
        )
        with self._failing_in_one_line():
            accepted = self._manager.save(step, args=args)
        if not accepted:
            reason = "it was opened read-only" if self.read_only else f"it holds step {self._manager.latest_step()}"
            raise CheckpointError(f"{self.directory}: cannot save step {step}, because {reason}")

    def restore(
        self, abstract: Any, check: Callable[[int, dict[str, Any]], None] | None = None, step: int | None = None
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """The newest undamaged checkpoint, or that of a step, as (step, state, meta); None if there are none at all.

        `abstract` is the state as a pytree of jax.ShapeDtypeStruct with shardings, of any mesh. check(step, meta) comes
        before any array is read; what it raises is raised.
        Newer damaged ones are warned about and renamed to quarantine-STEP: Orbax refuses to save up to the newest step.
        Raises CheckpointError if all are damaged, or if the newest good one has other leaves than `abstract`.
        """
        step = self._newest_good() if step is None else self.require(step)
        if step is None:
            return None
        expected = _leaves(abstract)
        description = self._description(step)
        if check is not None:
            check(step, description["meta"])
        _check_leaves(self.directory / str(step), _kinds(expected), description["leaves"])
        arrays = self._arrays(step, expected, description)
        self.trusted = description["trusted"] if description["trusted"] in self.steps() else step
        self.rewound += [known for known in description["rewound"] if known not in self.rewound]
        self.put_aside(step + 1)
        return step, jax.tree.unflatten(jax.tree.structure(abstract), arrays), description["meta"]

    def trust(self, first: int, last: int) -> None:
        """Of the steps first..last, which have proved to be sound, the newest that is saved is kept from now on."""
        proved = [step for step in self.steps() if first <= step <= last]
        if proved and max(proved) > (self.trusted or 0):
            self.trusted = max(proved)

    def put_aside(self, since: int, name: str = "quarantine") -> None:
        """Renames the steps from `since` on to NAME-STEP: Orbax refuses to save up to the newest step."""
        if self.read_only:
            return
        self.wait()
        if jax.process_index() == 0:
            for step in self.steps():
                if step >= since:
                    target = self.directory / f"{name}-{step}"
                    while target.exists():  # the same step was put aside before
                        target = target.with_name(target.name + "+")
                    (self.directory / str(step)).rename(target)
        multihost_utils.sync_global_devices("put aside")
        self._manager.reload()

    def rewind(self, step: int) -> bool:
        """Puts the steps after this one aside, unless that was done before: the same command may be run again.

        Returns whether it did. Raises CheckpointError where the step is not there or damaged.
        """
        newest = self._newest_good()
        if newest is not None and step in self._description(newest)["rewound"]:
            return False
        self.require(step)
        self.put_aside(step + 1, "rewound")
        self.rewound.append(step)
        return True

    def require(self, step: int | None) -> int:
        """That step, or the newest undamaged one where it is None. Raises CheckpointError where it is not there or
        damaged."""
        if step is None:
            if (newest := self._newest_good()) is None:
                raise CheckpointError(f"{self.directory}: no checkpoint to start from")
            return newest
        if step not in self.steps():
            raise CheckpointError(f"{self.directory} has no step {step}; there are: {self.steps()}")
        if damage := manifest.damage(self.directory / str(step)):
            raise CheckpointError(f"{self.directory / str(step)}: {damage}")
        return step

    def steps(self) -> list[int]:
        """The committed steps, oldest first, damaged ones included."""
        return steps_in(self.directory)

    def wait(self) -> None:
        """Until the last save is committed; raises CheckpointError if it failed."""
        with self._failing_in_one_line():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save; raises CheckpointError if it failed."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except CheckpointError as error:
            if kind is None:
                raise
            warnings.warn(str(error), stacklevel=2)  # what ended the block says more, and decides the exit code

    @contextlib.contextmanager
    def _failing_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._manager.reload()  # Orbax has already struck off the steps that this save was to replace
            where = self.directory / str(self._saving)
            raise CheckpointError(f"{where}: not saved, {first_line(error)}") from error

    def _write_manifest(self) -> None:
        (root,) = self.directory.glob(f"{self._saving}{_UNCOMMITTED}*")
        manifest.write(root)

    def _newest_good(self) -> int | None:
        """The newest undamaged step, None where there are no steps; process 0 looks for it, and all agree."""
        self.wait()
        good, damages = -1, []
        for step in reversed(self.steps() if jax.process_index() == 0 else []):
            if not (damage := manifest.damage(self.directory / str(step))):
                good = step
                break
            damages.append(f"{self.directory / str(step)}: {damage}")
        counts = np.asarray([good, len(damages)], np.int32)
        good, damaged = (int(count) for count in multihost_utils.broadcast_one_to_all(counts))
        if good < 0 and damaged:
            named = "; ".join(damages) or "process 0 names them"
            raise CheckpointError(f"all {damaged} checkpoints are damaged ({named}); put a good copy in their place")
        for damage in damages:
            warnings.warn(f"{damage}; going back to step {good}", stacklevel=3)
        return None if good < 0 else good

    def _description(self, step: int) -> dict[str, Any]:
        """What was saved with a step: its meta, and the kinds and checksums of its leaves. Raises CheckpointError."""
        path = self.directory / str(step)
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            well_formed = all(isinstance(found[name], dict) for name in ("meta", "leaves", "sums"))
            well_formed &= isinstance(found["trusted"], int) and isinstance(found["rewound"], list)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: what it holds cannot be read, {first_line(error)}") from error
        if not well_formed or found["leaves"].keys() != found["sums"].keys():
            raise CheckpointError(f"{path}: what it holds is not described as by this version of gentrain")
        return found

    def _arrays(
        self, step: int, expected: dict[str, jax.ShapeDtypeStruct], description: dict[str, Any]
    ) -> list[jax.Array]:
        """The saved arrays at the paths of `expected` only, in its order and shardings.

        Raises CheckpointError where they are not those whose checksums were saved.
        """
        if any(leaf.sharding is None for leaf in expected.values()):
            raise ValueError("every leaf of the abstract state needs a sharding, or Orbax would take the saved one")
        path, target = self.directory / str(step), _nested(expected)
        args = ocp.args.PyTreeRestore(
            target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
        )
        try:
            stored = _kinds(_leaves(ocp.PyTreeCheckpointHandler().metadata(path / "state").tree))
            wrong = manifest.differences(_kinds(expected), {name: stored[name] for name in stored if name in expected})
            if not wrong:
                restored = _leaves(self._manager.restore(step, args=ocp.args.Composite(state=args))["state"])
                arrays = {name: restored[name] for name in expected}
                sums = {name: description["sums"][name] for name in expected}
                wrong = manifest.differences(sums, manifest.checksums(arrays))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: its arrays cannot be read, {first_line(error)}") from error
        if wrong:
            raise CheckpointError(f"{path}: arrays are not as they were saved ({wrong}); remove it to go back a step")
        return list(arrays.values())


def steps_in(directory: Path) -> list[int]:
    """The committed steps of a folder of checkpoints, oldest first, damaged ones included."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if re.fullmatch("0|[1-9][0-9]*", path.name))


def read_meta(directory: str | os.PathLike) -> tuple[int, dict[str, Any]]:
    """Step and meta of the newest undamaged checkpoint of another run. Raises CheckpointError where there is none."""
    with Checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.require(None)
        return step, checkpoints._description(step)["meta"]


class _KeepChosen(preservation_policy.PreservationPolicy):
    """Preserves the checkpoints that are trusted and best at the time, and those of the last steps."""

    def __init__(self, checkpoints: Checkpoints, patience: int) -> None:
        self.checkpoints, self.patience = checkpoints, patience

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        unproved = max(info.step for info in checkpoints) - self.patience
        chosen = (self.checkpoints.trusted, self.checkpoints.best)
        return [info.step in chosen or info.step > unproved for info in checkpoints]


def restore_params(
    directory: str | os.PathLike,
    abstract_params: dict[str, Any],
    sources: Mapping[str, str],
    *,
    required: bool = False,
    step: int | None = None,
) -> tuple[int, dict[str, Any], str]:
    """Step, parameters by player, and digest of an undamaged checkpoint of another run, which is left as it is.

    abstract_params: the parameters of each wanted player as jax.ShapeDtypeStruct with shardings; sources: what each
    player is called there; several may have the same source. Of players that the other run did not have, as the critic
    of a run by likelihood, nothing is returned, unless they are `required`. By default the newest checkpoint is read.
    Raises CheckpointError if there is no usable checkpoint, none of the players in it, or if a wanted player's leaves
    are not as expected.
    """
    with Checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.require(step)
        path = checkpoints.directory / str(step)
        description = checkpoints._description(step)
        saved = description["leaves"]
        saved_players = {leaf.split("/")[1] for leaf in saved if leaf.startswith("params/")}
        wanted = {player: params for player, params in abstract_params.items() if sources[player] in saved_players}
        missing = sorted({sources[player] for player in abstract_params.keys() - wanted.keys()})
        if not wanted or (required and missing):
            raise CheckpointError(f"{path} has the players {sorted(saved_players)}, not {', '.join(missing)}")
        params = {}
        for player, shapes in wanted.items():
            prefix = f"params/{sources[player]}/"
            expected = _leaves({"params": {sources[player]: shapes}})
            _check_leaves(
                path, _kinds(expected), {leaf: kind for leaf, kind in saved.items() if leaf.startswith(prefix)}
            )
            params[player] = jax.tree.unflatten(
                jax.tree.structure(shapes), checkpoints._arrays(step, expected, description)
            )
    return step, params, manifest.read(path)["sha256"]


def _leaves(tree: Any) -> dict[str, Any]:
    """Path ('params/generator/embed') -> leaf, in the order of the tree."""
    with_paths = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in with_paths}
    if len(leaves) < len(with_paths):
        raise ValueError("two leaves have the same path: a key that contains '/', or both 1 and '1' as keys")
    return leaves


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts by the parts of each path."""
    root: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        inner = root
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = leaf
    return root


def _kinds(leaves: Mapping[str, Any]) -> dict[str, str]:
    """Path -> type and shape, as 'float32[8,4]'."""
    return {path: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for path, leaf in leaves.items()}


def _check_leaves(path: Path, expected: Mapping[str, str], saved: Mapping[str, str]) -> None:
    """Raises CheckpointError where the leaves that were saved are not those of this model."""
    if wrong := manifest.differences(expected, saved):
        raise CheckpointError(f"{path} is of another model: {wrong}; use the config it is from, or another workdir")
