"""What the options of several families of models have in common."""

from dataclasses import dataclass
from typing import ClassVar

from gentrain.options.schema import option
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
        " vocabularies; the backward pass makes them again; 0: all",
        may_change=True,
    )
    remat: str = option(
        "none",
        "kept for the backward pass: 'none': everything, 'dots': matmul outputs, 'full': inputs",
        choices=("none", "dots", "full"),
        may_change=True,
    )


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
