"""Options of evaluator 'likelihood': those of its section that it reads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect
from gentrain.options.sections import EvaluateSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ("batches",)

    def check(self, run: "Run", where: str) -> None:
        model = run.model
        expect(model.has_log_prob, "model.name", model.name, f"one that knows log-probabilities, for {where}")
