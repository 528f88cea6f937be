"""Options of cooperative training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gentrain.options.schema import expect, option
from gentrain.options.sections import ObjectiveSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(ObjectiveSection):
    shared = ("real_prior",)
    networks: ClassVar[dict[str, str]] = {"model": "model", "mediator": "sequences"}

    mediator_steps: int = option(
        1, "moves of the mediator a step, each on new samples of the generator", within="(0, 100]"
    )
    mediator_rate: float = option(
        1.0, "learning rate of the mediator by the generator's", within="(0, inf)", may_change=True
    )

    def check(self, run: "Run", where: str) -> None:
        pi = self.real_prior
        expect(
            0 < pi < 1, "objective.real_prior", pi, "a number between 0 and 1: at the ends a mediator sees one class"
        )
        makes, name = run.model.makes, run.model.name
        expect(makes == "sequences", "model.name", name, "a model of sequences, as 'lstm', for objective 'cooperative'")
