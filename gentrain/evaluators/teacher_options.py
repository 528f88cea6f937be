"""Options of evaluator 'teacher'."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect, option
from gentrain.options.sections import EvaluateSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ("examples",)

    prompt: int = option(0, "tokens of held-out rows that both sequences begin with", may_change=True)

    def check(self, run: "Run", where: str) -> None:
        taught = "teacher" in run.objective.networks
        expect(taught, "objective.name", run.config.objective.name, f"one with a teacher, for {where}")
        told = not run.config.data.conditional
        expect(told, "data.conditional", run.config.data.conditional, f"False, for {where}")
