"""Options of the quality of text."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect, option
from gentrain.options.sections import EvaluateSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ("examples",)

    unit: str = option(
        "words",
        "what n-grams are of: 'words' and punctuation marks, or 'characters', for texts of a word each",
        choices=("words", "characters"),
        may_change=True,
    )
    judge_steps: int = option(
        300,
        "steps of 64 texts in which a judge learns, one of real text, once, and one of the samples, at each evaluation;"
        " 0: no judge, and none of its numbers",
        within="[0, inf)",
        may_change=True,
    )

    def check(self, run: "Run", where: str) -> None:
        text = run.data_kind in ("text", "") and not run.config.data.conditional
        expect(text, "data.name", run.config.data.name, f"text without contexts, for {where}")
