"""Options of evaluator 'frontier': those of its section that it reads."""

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
        data = run.config.data.name
        world = f"a world of sequences, whose law is known, for {where}"
        expect(run.known_law and run.data_kind == "text", "data.name", data, world)
