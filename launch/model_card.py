"""What a person should know of a model that goes out: its README.md."""

from pathlib import Path

from gentrain import api, files
from gentrain.options import identity, tree

MOST = 12  # numbers that are shown
HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [gentrain]
---

# {name}

Trained by gentrain: objective `{objective}` on `{data}`, step {step:,} of
{steps:,}, written in {dtype}.
"""


def of(run: api.Loaded, workdir: Path, dtype: str) -> str:
    """Objective, data, numbers, what is set otherwise than by default, and where it comes from."""
    config = identity.saved(workdir)
    head = HEAD.format(
        name=workdir.absolute().name,
        objective=config.objective.name,
        data=config.data.name,
        step=run.step,
        steps=config.steps,
        dtype=dtype,
    )
    card = [head]
    if numbers := measured(workdir, run.step):
        card += ["## Numbers", "", "| metric | value |", "|---|---|"]
        card += [f"| {name} | {value:.6g} |" for name, value in numbers.items()] + [""]
    default, now = identity.resolved(tree.default_config()), identity.resolved(config)
    card += ["## Settings", "", "Those that are not the default:", "", "```"]
    card += [f"{key} = {value!r}" for key, value in now.items() if value != default[key]] + ["```", ""]
    if made := files.read_json(workdir / "provenance.json"):
        packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
        card += [
            "## How it was made",
            "",
            f"`{made['command']}`, commit {made['commit'] or 'unknown'}, {made['date']}.",
        ]
        card += [f"{made['hardware']}; Python {made['python']}; {packages}.", ""]
    return "\n".join(card)


def measured(workdir: Path, step: int) -> dict[str, float]:
    """What the evaluators measured at the step, or at the last one before it."""
    numbers: dict[str, float] = {}
    for record in files.read_jsonl(workdir / "metrics.jsonl"):
        if record["step"] <= step:
            numbers |= {name: value for name, value in record.items() if name.startswith(("valid/", "test/", "train/"))}
    return dict([*((name, value) for name, value in numbers.items() if value is not None)][:MOST])
