"""Options of evaluator 'components': none."""

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
        mixture = hasattr(run.model, "components")
        expect(mixture, "model.name", run.config.model.name, f"a mixture, for {where}")
