"""Options of worlds: distributions that are known exactly."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect, option
from gentrain.options.sections import SourceOptions

if TYPE_CHECKING:
    from gentrain.options.tree import Run

RANDOM = ("table", "markov", "hmm")
SEQUENCES = (*RANDOM, "oracle")
POINTS = ("gaussian", "bimodal", "blobs", "ring", "grid")


@dataclass(frozen=True)
class Options(SourceOptions):
    shared = ()
    argument = "NAME"
    known_law = True

    vocab: int = option(0, "symbols; 0: 3, and 5000 in 'oracle'", within="[0, 1e5]", when={"argument": SEQUENCES})
    length: int = option(
        0, "tokens of a sequence; 0: 4, and 20 in 'oracle'", within="[0, 10000]", when={"argument": SEQUENCES}
    )
    states: int = option(3, "hidden states", within="(0, 1000]", when={"argument": ("hmm",)})
    concentration: float = option(
        0.3, "of the Dirichlet law that probabilities are drawn from; small: peaked", within="(0, inf)",
        when={"argument": RANDOM},
    )  # fmt: skip
    seed: int = option(0, "of what a world draws for itself, not of its samples", when={"argument": SEQUENCES})
    path: str = option("", "of an oracle's weights (.npz), instead of a draw by seed", when={"argument": ("oracle",)})
    probabilities: tuple = option(
        (), "a table nested by position, instead of a draw by seed", when={"argument": ("table",)}
    )
    covariance: tuple = option(((1.0, 0.9), (0.9, 1.0)), "of the Gaussian", when={"argument": ("gaussian",)})
    examples: int = option(0, "training examples; 0: each one is new", within="[0, 1e7]")
    held_out: int = option(10_000, "examples of valid and of test", within="(0, 1e7]")

    def kind(self, argument: str) -> str:
        return "points" if argument in POINTS else "text"

    def check(self, run: "Run", where: str) -> None:
        name = run.config.data.name
        names = ", ".join(f"world:{world}" for world in (*SEQUENCES, *POINTS))
        expect(name.partition(":")[2] in (*SEQUENCES, *POINTS), "data.name", name, f"one of {names}")
