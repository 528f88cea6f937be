"""Options of the Transformer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.models.base_options import TokenModelOptions
from gentrain.options.schema import expect, option

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(TokenModelOptions):
    heads: int = option(4, "query heads", within="(0, inf)")
    kv_heads: int = option(4, "key/value heads; fewer than heads: grouped-query attention", within="(0, inf)")
    mlp_width: int = option(
        0, "hidden width of SwiGLU; 0: 8/3 of the width, rounded up to a multiple of 32", within="[0, inf)"
    )
    rope_base: float = option(10_000.0, "longest wavelength of the rotary positions, over 2 pi", within="(0, inf)")
    attention: str = option(
        "xla",
        "how attention is computed: 'xla' everywhere; 'cudnn', the fused kernel of NVIDIA GPUs, for bfloat16 and heads"
        " of 8 to 128 numbers; 'splash', that of TPUs (elsewhere it is 'xla'), for lengths in 128s, heads of 64, 128, …"
        " numbers and no contexts",
        choices=("xla", "cudnn", "splash"),
        may_change=True,
    )
    attention_chunk: int = option(
        512,
        "queries whose scores over all keys are in memory at once, where a sequence is longer; the backward pass makes"
        " them again; 0: all",
        within="[0, inf)",
        may_change=True,
    )
    scan_layers: bool = option(
        True, "one compiled layer, scanned; False unrolls, which is faster for few layers", may_change=True
    )

    def check(self, run: "Run", where: str) -> None:
        section = where.partition(".")[0]
        divisor = f"a divisor of {section}.width={self.width}"
        expect(self.width % self.heads == 0, f"{where}.heads", self.heads, divisor)
        size = self.width // self.heads
        even = f"a number for which {section}.width / heads is even, for rotary positions"
        expect(size % 2 == 0, f"{where}.heads", self.heads, even)
        groups = f"a divisor of {where}.heads={self.heads}"
        expect(self.heads % self.kv_heads == 0, f"{where}.kv_heads", self.kv_heads, groups)
        fused = self.compute_dtype == "bfloat16" and size % 8 == 0 and size <= 128
        fits = f"'xla' with {section}.compute_dtype={self.compute_dtype!r} and heads of {size} numbers"
        expect(self.attention != "cudnn" or fused, f"{where}.attention", self.attention, fits)
        whole = f"'xla' with heads of {size} numbers"
        expect(self.attention != "splash" or size % 64 == 0, f"{where}.attention", self.attention, whole)
