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
    encoder: str = option(
        "",
        "whose embeddings texts are compared by: an encoder of sentences, a BERT's folder as Hugging Face lays it out,"
        " or 'minilm', all-MiniLM-L6-v2, which is fetched once, 84 MB; '': the judge's states",
        may_change=True,
    )

    def check(self, run: "Run", where: str) -> None:
        expect(run.data_kind in ("text", ""), "data.name", run.config.data.name, f"text, for {where}")
