"""Options of evaluator 'samples': those of its section that it reads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect
from gentrain.options.sections import EvaluateSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ()

    def check(self, run: "Run", where: str) -> None:
        evaluators = run.config.evaluate.evaluators
        expect(run.data_kind != "points", "evaluate.evaluators", evaluators, "'exact' or 'modes' for points")
