"""Options of evaluator 'exact': those of its section that it reads."""

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
        data, model = run.config.data.name, run.model
        expect(run.known_law, "data.name", data, f"a world, whose law is known, for {where}")
        expect(model.has_log_prob, "model.name", model.name, f"one that knows log-probabilities, for {where}")
