"""Options of evaluator 'modes': those of its section that it reads."""

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
        world = f"a mixture of Gaussians, as world:ring, for {where}"
        expect(run.known_law and run.data_kind == "points", "data.name", data, world)
