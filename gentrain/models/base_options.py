"""What the options of several families of models have in common."""

from dataclasses import dataclass
from typing import ClassVar

from gentrain.options.schema import expect, option
from gentrain.options.sections import NetworkSection


@dataclass(frozen=True)
class TokenModelOptions(NetworkSection):
    """Of models that read tokens through a table of embeddings."""

    reads_mixtures = True

    tie_embeddings: bool = option(
        False, "the output matrix is the table of embeddings, transposed; a critic then does not start at 0"
    )
    output_bias: bool = option(True, "logits have a bias")
    scale_embeddings: bool = option(True, "embeddings are read times the root of the width")
    logits_chunk: int = option(
        0,
        "positions whose logits are in memory at once, in losses and while tokens are found in parallel, for large"
        " vocabularies; likelihoods hold those of a piece of the vocabulary instead, whatever the number; the backward"
        " pass makes them again; 0: all",
        may_change=True,
    )
    remat: str = option(
        "none",
        "kept for the backward pass: 'none': everything, 'dots': matmul outputs, 'full': inputs",
        choices=("none", "dots", "full"),
        may_change=True,
    )


@dataclass(frozen=True)
class DecoderOptions(TokenModelOptions):
    """Of models of attention over tokens. maps: the linear ones of a layer, by name."""

    maps: ClassVar[tuple[str, ...]] = ()

    sees_begin: bool = option(
        True,
        "tokens see the input that stands where a sequence begins; off: they do not, and the first of them is at"
        " position 0, as in published models whose tokenizers put nothing before a text",
    )
    heads: int = option(4, "query heads", within="(0, inf)")
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
    lora_rank: int = option(
        0,
        "rank of low-rank adapters (LoRA), which then learn alone, beside what init_from gives; 0: none, and all"
        " parameters learn",
        within="[0, inf)",
    )
    lora_alpha: float = option(16.0, "an adapter's map is added times lora_alpha / lora_rank")
    lora_targets: tuple = option((), "the maps of a layer that have an adapter, as ('query', 'value'); (): all")

    def check_decoder(self, where: str, size: int) -> None:
        """Raises ConfigError for a kernel that takes no heads of so many numbers, and for maps that no layer has."""
        for name in self.lora_targets:
            expect(name in self.maps, f"{where}.lora_targets", self.lora_targets, f"names of {', '.join(self.maps)}")
        section = where.partition(".")[0]
        fused = self.compute_dtype == "bfloat16" and size % 8 == 0 and size <= 128
        fits = f"'xla' with {section}.compute_dtype={self.compute_dtype!r} and heads of {size} numbers"
        expect(self.attention != "cudnn" or fused, f"{where}.attention", self.attention, fits)
        whole = f"'xla' with heads of {size} numbers"
        expect(self.attention != "splash" or size % 64 == 0, f"{where}.attention", self.attention, whole)


@dataclass(frozen=True)
class ImageModelOptions(NetworkSection):
    """Of generators that make whole images from noise."""

    makes = "images"
    has_log_prob = False
    shared: ClassVar[tuple[str, ...]] = ("width", "layers", "param_dtype", "compute_dtype")

    latent: int = option(2, "numbers of noise that an image is made from", within="(0, inf)")


@dataclass(frozen=True)
class ImageCriticOptions(NetworkSection):
    """Of critics of whole images."""

    judges = ("images",)
    prefixes = False
