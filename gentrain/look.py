"""Looks at a run from outside: evaluates, or only samples from, one of its checkpoints."""

from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from gentrain import train
from gentrain.best import step_of
from gentrain.datasets import build as building
from gentrain.errors import CheckpointError
from gentrain.options.identity import check_same_run, resolved
from gentrain.reporting.writer import show


def look(config: ConfigDict, workdir: Path, mode: str, allow: Collection[str] = (), which: str | None = None) -> None:
    """Does what --mode says, 'evaluate' or 'sample', at the step that --step means; works beside the run while it
    trains, and with other evaluators than it has."""
    check_same_run(config, workdir / "config.json")
    if not (workdir / "checkpoints").is_dir():
        raise CheckpointError(f"no checkpoint in {workdir}; train first, or choose another --workdir")
    data = None
    if mode == "sample":
        config.evaluate.evaluators = ("samples",)
        data = without_examples(workdir)
    run = train.build(config, workdir, allow=allow, data=data)
    state, step, _ = train.restored(run, allow, step_of(workdir, which))
    options = {key: value for key, value in resolved(config).items() if key.startswith(("evaluate.", "sample."))}
    show(workdir, mode, {"step": step, "config": options}, *train.measure(run, state, step))


def without_examples(workdir: Path) -> building.Data | None:
    """What the workdir itself knows of its data, where that is enough to draw samples."""
    data = building.stored(workdir)
    return None if data is None or data.spec.takes_contexts_from_split else data
