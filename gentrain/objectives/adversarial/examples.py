"""What a critic looks at: examples of either class, and which of them count."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from gentrain.datasets.spec import ImageSpec, Spec
from gentrain.models.base import DensityModel, Sampler, SequenceModel
from gentrain.objectives.base import Batch


class Examples(NamedTuple):
    """Examples of one class.

    values: points (n, d), pictures (n, height, width, channels), tokens (n, length) int, or weights (n, length,
    vocab + 1) that mix them. mask: the tokens that count (n, length), or (n, 1) of points and pictures. log_prob: of
    tokens under the generator that drew them, nats, 0 where the mask does not hold; None where it was not noted.
    """

    values: Array
    mask: Bool[Array, "n positions"]
    log_prob: Float[Array, "n length"] | None = None


def real_examples(model: SequenceModel | Sampler | DensityModel, spec: Spec, batch: Batch) -> Examples:
    """The data of a batch, in the form in which the generator makes its own."""
    if isinstance(model, SequenceModel):
        return Examples(batch["tokens"], batch["mask"])
    values = spec.pixels(batch["tokens"]) if isinstance(spec, ImageSpec) else batch["points"]
    return Examples(values, row_mask(batch)[:, None])


def row_mask(batch: Batch) -> Bool[Array, "n"]:
    """False for rows that only fill up a batch: they belong to neither class."""
    return batch["mask"].reshape(len(batch["row"]), -1)[:, 0]


def final_logits(logits: Float[Array, "n prefixes"], mask: Bool[Array, "n positions"]) -> Float[Array, "n"]:
    """The logit of each whole example."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    last = jnp.maximum(mask.sum(1, keepdims=True) - 1, 0)
    return jnp.take_along_axis(logits, last, axis=1)[:, 0]
