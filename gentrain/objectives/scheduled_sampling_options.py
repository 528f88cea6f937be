"""Options of scheduled sampling."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.options.schema import expect, option
from gentrain.options.sections import ObjectiveSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run

TOKENS, MIXTURES = ("sample", "argmax"), ("soft_argmax", "gumbel_softmax")
FALLING = ("linear", "exponential", "inverse_sigmoid")


@dataclass(frozen=True)
class Options(ObjectiveSection):
    shared = ()

    keep_true: float = option(
        0.5, "probability of feeding the true token; schedules that fall never fall below it", within="[0, 1]"
    )
    keep_schedule: str = option(
        "constant",
        "keep_true by step i: 'linear' keep_k - keep_slope*i, 'exponential' keep_k^i, 'inverse_sigmoid'"
        " keep_k / (keep_k + exp(i / keep_k))",
        choices=("constant", *FALLING),
    )
    keep_k: float = option(
        1.0,
        "linear: where it starts; exponential: below 1; inverse_sigmoid: steps, 1 or more",
        within="(0, inf)",
        when={"keep_schedule": FALLING},
    )
    keep_slope: float = option(0.0, "how much it falls a step", when={"keep_schedule": ("linear",)})
    coin: str = option(
        "token", "'token': one coin for each token; 'sequence': one for a row", choices=("token", "sequence")
    )
    feed: str = option(
        "sample",
        "what is fed where the coin says so: a token, 'sample' or 'argmax', or a mixture of tokens, 'soft_argmax' or"
        " 'gumbel_softmax', whose weights are softmax(soft_alpha * (logits + noise))",
        choices=(*TOKENS, *MIXTURES),
    )
    soft_alpha: float = option(1.0, "large: nearly one token", within="(0, inf)", when={"feed": MIXTURES})
    feed_gradient: bool = option(False, "let the gradient through the mixtures that are fed", when={"feed": MIXTURES})
    draw: str = option(
        "inverse_cdf",
        "how a token is drawn: 'inverse_cdf' is cheap, 'gumbel' takes fewer passes in mode 'exact'",
        choices=("inverse_cdf", "gumbel"),
        when={"feed": ("sample",)},
    )
    label: str = option(
        "true",
        "what is learned after a fed prefix: the data's token, or 'expert', the world's conditional",
        choices=("true", "expert"),
    )
    mode: str = option(
        "sequential",
        "how fed tokens are found: 'sequential', token by token; 'exact', the same tokens by passes over many positions"
        " at once; 'passes:K', K such passes, which is faithful from K = data.length - 1 on",
    )
    window: int = option(
        0,
        "positions that a pass looks at, 0: all; a window needs a model that extends its cache, as transformer",
        when={"mode": ("exact",)},
    )
    max_passes: int = option(
        0, "passes after which the rest is fed as it stands; 0: as many as it takes", when={"mode": ("exact",)}
    )
    label_smoothing: float = option(
        0.0, "weight of the uniform law in the target", within="[0, 1)", when={"label": ("true",)}
    )
    z_loss: float = option(0.0, "weight of log(normaliser)^2", when={"label": ("true",)})

    def check(self, run: "Run", where: str) -> None:
        makes = run.model.makes
        expect(makes == "sequences", "model.name", run.model.name, f"a model of sequences for {where}, as 'lstm'")
        passes = re.fullmatch(r"passes:([1-9]\d*)", self.mode)
        exists = self.mode in ("sequential", "exact") or passes is not None
        expect(exists, f"{where}.mode", self.mode, "'sequential', 'exact' or 'passes:K' with K of 1 or more")
        k, schedule = self.keep_k, self.keep_schedule
        if schedule in ("linear", "exponential"):
            expect(
                k <= 1, f"{where}.keep_k", k, f"at most 1 with keep_schedule={schedule!r}, or probabilities exceed 1"
            )
        if schedule == "inverse_sigmoid":
            expect(k >= 1, f"{where}.keep_k", k, "1 or more with keep_schedule='inverse_sigmoid': steps, as 1000")
        if self.feed in MIXTURES:
            exact = f"'sequential' or 'passes:K' with feed={self.feed!r}: mixtures have no fixed point to stop at"
            expect(self.mode != "exact", f"{where}.mode", self.mode, exact)
            expect(self.label == "true", f"{where}.label", self.label, f"'true' with feed={self.feed!r}")
            reads = f"one that reads mixtures of tokens, for {where}.feed={self.feed!r}"
            expect(run.model.reads_mixtures, "model.name", run.model.name, reads)
        if self.label == "expert":
            expert = f"'true', since data.name={run.config.data.name!r} has no expert to ask; worlds have"
            expect(run.known_law, f"{where}.label", self.label, expert)
