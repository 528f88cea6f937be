"""Options of the Transformer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gentrain.models.base_options import DecoderOptions
from gentrain.options.schema import expect, option

if TYPE_CHECKING:
    from gentrain.options.tree import Run


@dataclass(frozen=True)
class Options(DecoderOptions):
    maps = ("query", "key", "value", "out", "gate", "up", "down")

    kv_heads: int = option(4, "key/value heads; fewer than heads: grouped-query attention", within="(0, inf)")
    mlp_width: int = option(
        0, "hidden width of SwiGLU; 0: 8/3 of the width, rounded up to a multiple of 32", within="[0, inf)"
    )
    head_size: int = option(0, "numbers of a head; 0: width / heads", within="[0, inf)")
    qkv_bias: bool = option(False, "queries, keys and values have biases, as in Qwen 2")
    qk_norm: bool = option(False, "queries and keys are normed, head by head, before they are rotated, as in Qwen 3")
    norm_epsilon: float = option(1e-6, "added to the mean square that a norm divides by the root of", within="(0, inf)")
    rope_scaling: tuple = option(
        (),
        "(factor, low, high, length) by which Llama 3 stretches rotary waves for longer sequences than the length that"
        " it was trained on; (): none",
    )
    rope_base: float = option(10_000.0, "longest wavelength of the rotary positions, over 2 pi", within="(0, inf)")

    def check(self, run: "Run", where: str) -> None:
        section = where.partition(".")[0]
        divisor = f"a divisor of {section}.width={self.width}, or {where}.head_size"
        expect(self.head_size > 0 or self.width % self.heads == 0, f"{where}.heads", self.heads, divisor)
        size = self.head_size or self.width // self.heads
        key, even = ("head_size", "an even number") if self.head_size else ("heads", f"{section}.width / heads even")
        expect(size % 2 == 0, f"{where}.{key}", getattr(self, key), f"{even}, for rotary positions")
        numbers = [number for number in self.rope_scaling if isinstance(number, int | float) and number > 0]
        four = len(numbers) in (0, 4) and len(numbers) == len(self.rope_scaling)
        expect(four, f"{where}.rope_scaling", self.rope_scaling, "(factor, low, high, length), all positive, or ()")
        groups = f"a divisor of {where}.heads={self.heads}"
        expect(self.heads % self.kv_heads == 0, f"{where}.kv_heads", self.kv_heads, groups)
        self.check_decoder(where, size)
