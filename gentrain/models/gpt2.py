"""GPT-2: a decoder-only Transformer with learned positions, LayerNorm, biases and GELU; a context is a prefix."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.models.attention import Slots
from gentrain.models.base import Cache, SequenceModel
from gentrain.models.decoder import Decoder, Layer, require_attention
from gentrain.models.gpt2_options import Options
from gentrain.models.layers import sequence_model
from gentrain.sharding import keep_rows, keep_whole


def build(config: ConfigDict, spec: Spec) -> SequenceModel:
    """GPT-2 over the tokens of spec. Raises ConfigError for rows of more positions than it has, and for attention that
    these data or devices have not."""
    require_attention(config, spec)
    module = GPT2(Options.of(config), spec)
    context, positions = module.context_positions, module.config.positions
    if context + spec.length > positions:
        after = f" after a context of {context}" if context else ""
        raise ConfigError(
            f"gpt2.positions={positions}: expected {context + spec.length} or more, for"
            f" data.length={spec.length}{after}"
        )
    return sequence_model(module)


def norm(config: Options, name: str | None = None) -> nn.LayerNorm:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias."""
    # The mean of squares less the square of the mean would lose what a large mean hides.
    return nn.LayerNorm(
        config.norm_epsilon,
        use_fast_variance=False,
        dtype=config.compute_dtype,
        param_dtype=config.param_dtype,
        name=name,
    )


class Block(Layer):
    """x + attention(norm(x)), then x + mlp(norm(x)), mlp(x) = gelu(x U) D, with biases. Radford et al. 2019."""

    config: Options

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        layer: Int[Array, ""],
        cache: Cache | None,
        slots: Slots,
        keys: Array | None,
    ) -> tuple[Float[Array, "batch length width"], Cache | None]:
        config = self.config
        y = self.dense("qkv", 3 * config.width, norm(config, "attention_norm")(x), bias=True)
        query, key, value = (part.reshape(*part.shape[:2], config.heads, -1) for part in jnp.split(y, 3, axis=-1))
        y, cache = self.attend(query, key, value, cache, slots)
        x += self.drop(self.dense_out("out", y, bias=True), keys, 2 * layer)

        y = self.dense("up", config.mlp_width or 4 * config.width, norm(config, "mlp_norm")(x), bias=True)
        y = nn.gelu(y, approximate=True)
        return x + self.drop(self.dense_out("down", y, bias=True), keys, 2 * layer + 1), cache


class GPT2(Decoder):
    """Blocks over the sum of two tables: of tokens, and of positions."""

    config: Options
    block = Block

    def setup(self) -> None:
        super().setup()
        config = self.config
        table = nn.initializers.normal(config.width**-0.5)
        self.positions = self.param("positions", table, (config.positions, config.width), config.param_dtype)

    def last_norm(self) -> nn.Module:
        return norm(self.config)

    def cache_shape(self) -> tuple[int, int]:
        return self.config.heads, self.config.width // self.config.heads

    def place(self, x: Array, position: Int[Array, "batch length"], slots: Slots) -> tuple[Array, Slots]:
        rows = keep_rows(keep_whole(self.positions).at[position].get(mode="clip"))
        return x + self.scaled(rows), slots
