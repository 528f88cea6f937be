"""Options of transcription."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect, option
from gentrain.options.sections import EvaluateSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ("batches",)

    beam: int = option(
        1, "prefixes kept at every token; 1: greedy; time grows with it", within="(0, 1000]", may_change=True
    )

    def check(self, run: "Run", where: str) -> None:
        conditional = run.config.data.conditional
        expect(conditional, "data.conditional", conditional, f"True, for {where}, which compares answers to contexts")
