"""Options of maximum likelihood."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect, option
from gentrain.options.sections import ObjectiveSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(ObjectiveSection):
    shared = ()

    label_smoothing: float = option(
        0.0, "weight of the uniform law in the target", within="[0, 1)", when={"makes": ("sequences",)}
    )
    z_loss: float = option(
        0.0, "weight of log(normaliser)^2, which keeps logits from drifting", when={"makes": ("sequences",)}
    )

    def check(self, run: "Run", where: str) -> None:
        needs = "one that knows log-probabilities, for objective.name='likelihood'"
        expect(run.model.has_log_prob, "model.name", run.model.name, needs)
