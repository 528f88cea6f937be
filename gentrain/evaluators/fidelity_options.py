"""Options of evaluator 'fidelity': those of its section that it reads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect, option
from gentrain.options.sections import EvaluateSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ("examples",)

    features: str = option(
        "",
        "what gives the features: the folder of a DINOv2 as Hugging Face lays it out, or an ONNX file (needs"
        " onnxruntime); empty: a classifier trained on the data",
        may_change=True,
    )
    network: str = option(
        "",
        "what the network of `features` is: 'inception', and there are fidelity/fid and /kid, or 'dinov2', and there is"
        " fidelity/fd_dinov2",
        choices=("", "inception", "dinov2"),
        may_change=True,
    )

    def check(self, run: "Run", where: str) -> None:
        options = run.config.evaluate.fidelity
        named_alone = options.network and not options.features
        expect(not named_alone, f"{where}.network", options.network, "a network in features, which it says more of")
        expect(run.data_kind in ("images", ""), "data.name", run.config.data.name, f"images, for {where}")
