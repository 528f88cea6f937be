"""Weights & Biases: project gentrain, a run by the workdir's name; WANDB_MODE=offline keeps it in the workdir alone.

A run that is started again goes on in the same run there. Whoever is asked, and where, says wandb's own environment,
as WANDB_PROJECT.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from gentrain import files


def build(workdir: Path, config: Mapping[str, Any]) -> "Run":
    """The run of this workdir, whose id is kept in wandb.json."""
    kept = workdir / "wandb.json"
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "gentrain"),
        name=workdir.name,
        id=files.read_json(kept).get("id"),
        resume="allow",
        dir=workdir,
        config=dict(config),
        settings=wandb.Settings(console="off", quiet=True),
    )
    files.write_json(kept, {"id": run.id})
    # W&B's own steps only grow; those of a run that goes back to a checkpoint do not.
    run.define_metric("*", step_metric="step")
    return Run(run)


class Run:
    """A run there."""

    def __init__(self, run: Any):
        self.run = run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def close(self) -> None:
        self.run.finish()
