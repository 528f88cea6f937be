"""Options of GPT-2."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.models.base_options import DecoderOptions
from gentrain.options.schema import expect, option

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(DecoderOptions):
    maps = ("qkv", "out", "up", "down")

    mlp_width: int = option(0, "hidden width of the MLP; 0: 4 times the width", within="[0, inf)")
    positions: int = option(
        1024, "learned ones; a context and data.length together may not have more", within="(0, inf)"
    )
    norm_epsilon: float = option(1e-5, "added to the variance that a norm divides by the root of", within="(0, inf)")

    def check(self, run: "Run", where: str) -> None:
        divisor = f"a divisor of {where.partition('.')[0]}.width={self.width}"
        expect(self.width % self.heads == 0, f"{where}.heads", self.heads, divisor)
        self.check_decoder(where, self.width // self.heads)
