"""Options of evaluator 'fidelity': those of its section that it reads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect
from gentrain.options.sections import EvaluateSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ("examples",)

    def check(self, run: "Run", where: str) -> None:
        expect(run.data_kind in ("images", ""), "data.name", run.config.data.name, f"images, for {where}")
