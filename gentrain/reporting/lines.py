"""What a run says of itself in one line."""

import os
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import sharding
from gentrain.datasets import build as building
from gentrain.datasets.spec import Texts
from gentrain.models.base import SequenceModel
from gentrain.objectives.base import Objective


def describe(state: Any, mesh: Mesh, summary: Mapping[str, Any]) -> str:
    """What is about to be trained, on what. state: of shapes; summary: that of the data."""
    axes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
    parameters = f"{sharding.elements((state.params, state.frozen)):,} parameters"
    if state.frozen:
        parameters += f" ({sharding.elements(state.frozen):,} frozen)"
    pages = ", memory in huge pages" if "hugetlb" in os.environ.get("GLIBC_TUNABLES", "") else ""
    parts = [
        f"{parameters} on {jax.device_count()} x {jax.devices()[0].device_kind} {axes}".rstrip() + pages,
        f"{summary['documents']:,} documents, {summary['tokens']:,} tokens of {summary['vocab']:,} symbols",
    ]
    parts += building.remarks(summary)
    for name, source in summary["sources"].items():
        parts.append(f"{name} {source['share']:.2%} of the examples, {source['epochs']:.2f} epochs")
    return "; ".join(parts)


def glimpse(samples: Texts) -> str:
    """How the first of some texts begin."""
    first_lines = [text.strip().splitlines()[0][:60] for text in samples.texts if text.strip()]
    return " | ".join(first_lines[:8])


def headline(config: ConfigDict, objective: Objective, data: building.Data, values: Mapping[str, float]) -> str:
    """The few numbers to watch: each player's likelihood or loss, and the speed."""
    split = data.split(config.evaluate.split)
    unit = data.spec.unit(split.tokens / split.characters)
    shown = []
    for player in dict.fromkeys(objective.players):
        nll = values.get(f"{player}/nll")
        shown.append(f"{nll:.3f} {unit}" if nll is not None else f"{player} loss {values[f'{player}/loss']:.3f}")
    counted = "tokens" if isinstance(objective.model, SequenceModel) else "examples"
    return ", ".join([*shown, f"{values['tokens_per_second']:,.0f} {counted}/s"])
