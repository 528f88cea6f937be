"""Options of exposure bias."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect, option
from gentrain.options.sections import EvaluateSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ("examples",)

    ngram_order: int = option(
        5, "the order of the n-gram that stands for the law of the data", within="(0, 20]", may_change=True
    )

    def check(self, run: "Run", where: str) -> None:
        text = run.data_kind in ("text", "") and not run.config.data.conditional
        expect(text, "data.name", run.config.data.name, f"text without contexts, for {where}")
