"""Options of the exact divergence: the dial alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect
from gentrain.options.sections import ObjectiveSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(ObjectiveSection):
    shared = ("real_prior",)

    def check(self, run: "Run", where: str) -> None:
        data = run.config.data.name
        expect(run.known_law, "data.name", data, "a world, whose law is known, for objective.name='divergence'")
        needs = "one that knows log-probabilities, for objective.name='divergence'"
        expect(run.model.has_log_prob, "model.name", run.model.name, needs)
