"""Options of evaluator 'frontier'."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gentrain.options.schema import expect, option
from gentrain.options.sections import EvaluateSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run

TOP_PS = (0.5, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ("examples",)

    temperatures: tuple = option(
        (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5),
        "temperatures at which samples are drawn, 1 among them",
        may_change=True,
    )
    top_ps: tuple = option(
        TOP_PS,
        "shares of the likeliest tokens from which samples are drawn at temperature 1, where the law of text is not"
        " known; (): none",
        may_change=True,
    )
    nll_bound: float = option(
        0.0,
        "nats/token of nll_test up to which the least nll_oracle is looked for, in a known world; 0: halfway from its"
        " entropy to the logarithm of its vocabulary",
        may_change=True,
    )

    def check(self, run: "Run", where: str) -> None:
        text = run.data_kind in ("text", "") and not run.config.data.conditional
        expect(text, "data.name", run.config.data.name, f"text without contexts, for {where}")
        warm = different(self.temperatures, 1e-3, float("inf")) and 1 in self.temperatures
        expect(warm, f"{where}.temperatures", self.temperatures, "different numbers from 0.001 on, 1 among them")
        shares = different(self.top_ps, 1e-3, 0.999)
        expect(shares, f"{where}.top_ps", self.top_ps, "different numbers from 0.001 to 0.999")
        if run.known_law:
            why = f"{TOP_PS}: a known world has temperatures alone, since no nucleus holds all that the data have"
            expect(self.top_ps == TOP_PS, f"{where}.top_ps", self.top_ps, why)
        else:
            why = "0: where the law is not known, the bound is the self-BLEU-4 of real text"
            expect(self.nll_bound == 0, f"{where}.nll_bound", self.nll_bound, why)


def different(values: tuple[Any, ...], least: float, most: float) -> bool:
    """Whether these are numbers between the two, no two of them equal."""
    numbers = all(isinstance(value, int | float) and least <= value <= most for value in values)
    return numbers and len(set(values)) == len(values)
