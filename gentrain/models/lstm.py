"""A multi-layer LSTM; a context is read by a second LSTM whose last state is the first one's initial state."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.models.base import Cache, Inputs, SequenceModel
from gentrain.models.layers import TokenModel, keep_mask, remat, sequence_model, unit_variance
from gentrain.models.lstm_options import Options

State = tuple[Float[Array, "batch width"], Float[Array, "batch width"]]  # of a layer: cell (float32), hidden
Carry = tuple[State, ...]  # the states of all layers


def build(config: ConfigDict, spec: Spec) -> SequenceModel:
    """The LSTM over the tokens of spec."""
    return sequence_model(LSTM(Options.of(config), spec))


class Cell(nn.Module):
    """One step of one layer.

    i, f, g, o = x W + h U + b;  c' = sigmoid(f + 1) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')
    The 1 opens the forget gate at the start of training. x (batch, width) may be given as x W, (batch, 4 width).
    Hochreiter & Schmidhuber 1997, Gers et al. 2000.
    """

    param_dtype: str

    @nn.compact
    def __call__(self, state: State, x: Float[Array, "batch _"]) -> tuple[State, Float[Array, "batch width"]]:
        cell, hidden = state
        size = 4 * hidden.shape[-1]
        dense: Any = {"dtype": x.dtype, "param_dtype": self.param_dtype, "kernel_init": unit_variance}
        gates = x if x.shape[-1] == size else nn.Dense(size, use_bias=False, name="input", **dense)(x)
        gates += nn.Dense(size, name="recurrent", **dense)(hidden)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        # The cell is a sum over time: in float32, or small terms would be lost in bfloat16.
        cell = nn.sigmoid(f + 1).astype(jnp.float32) * cell + (nn.sigmoid(i) * nn.tanh(g)).astype(jnp.float32)
        hidden = nn.sigmoid(o) * nn.tanh(cell).astype(x.dtype)
        return (cell, hidden), hidden


class Stack(nn.Module):
    """One step of all layers; rows that read a beginning of sequence go on from their initial state.

    masks: what dropout keeps of each layer's input and, last, of the output, which is not multiplied here.
    """

    config: Options

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        x: Float[Array, "batch _"],
        bos: Bool[Array, "batch"],
        masks: Float[Array, "batch sites width"] | None,
        initial: Carry,
    ) -> tuple[Carry, Float[Array, "batch width"]]:
        carry = jax.tree.map(lambda first, last: jnp.where(bos[:, None], first, last), initial, carry)
        states = []
        for layer, state in enumerate(carry):
            x = x if masks is None else x * masks[:, layer]
            state, x = Cell(self.config.param_dtype, name=f"layer_{layer}")(state, x)
            states.append(state)
        return tuple(states), x


class LSTM(TokenModel):
    """Dropout is on each layer's input and on the last output, not on what goes on in time (Zaremba et al. 2014).

    A cache has `carry`, the states of all layers, and `initial`, those with which a sequence begins.
    """

    config: Options

    differentiable_step = True

    def setup(self) -> None:
        super().setup()
        over_time = nn.scan(
            remat(Stack, self.config.remat, scanned=True),
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=(1, 1, 1, nn.broadcast),
            out_axes=1,
        )
        self.decoder = over_time(self.config)
        if self.context_vocab:
            self.encoder = over_time(self.config)

    def hidden(self, inputs: Inputs, context: Array | None, keys: Array | None) -> Float[Array, "batch length width"]:
        initial = self.initial(inputs.shape[0], context)
        return self.run(initial, inputs, initial, keys)[1]

    def start(self, batch: int, length: int, context: Array | None = None) -> Cache:
        initial = self.initial(batch, context)
        return {"carry": initial, "initial": initial}

    def step(self, cache: Cache, token: Shaped[Array, "batch ..."]) -> tuple[Cache, Float[Array, "batch vocab"]]:
        inputs = token[:, None]
        folded = self.has_variable("folded", "table") and inputs.ndim == 2
        x = self.get_variable("folded", "table")[inputs] if folded else self.read_tokens(inputs)
        carry, x = self.decoder(cache["carry"], x, self.begins(inputs), None, cache["initial"])
        return {"carry": carry, "initial": cache["initial"]}, self.logits(x)[:, 0]

    def fold(self) -> dict[str, Float[Array, "symbols gates"]]:
        """What the first layer's gates take from each token, BOS last: with it a step is one matmul fewer."""
        embeddings = self.read_tokens(jnp.arange(self.vocab + 1)[None, :])[0]
        kernel = self.decoder.variables["params"]["layer_0"]["input"]["kernel"]
        return {"table": embeddings @ kernel.astype(embeddings.dtype)}

    def initial(self, batch: int, context: Array | None) -> Carry:
        """Zeros, or the encoder's state after the context."""
        shape = (batch, self.config.width)
        zeros = ((jnp.zeros(shape, jnp.float32), jnp.zeros(shape, self.config.compute_dtype)),) * self.config.layers
        x = self.read_context(context)
        if x is None:
            return zeros
        return self.encoder(zeros, x, jnp.zeros(x.shape[:2], bool), None, zeros)[0]

    def run(
        self, carry: Carry, inputs: Inputs, initial: Carry, keys: Array | None
    ) -> tuple[Carry, Float[Array, "batch length width"]]:
        """The states after the inputs, and the outputs."""
        x, rate, layers = self.read_tokens(inputs), self.config.dropout, self.config.layers
        if keys is None or not rate:
            return self.decoder(carry, x, self.begins(inputs), None, initial)
        length, width = x.shape[1:]
        masks = keep_mask(keys, 0, rate, (length, layers + 1, width), x.dtype)
        carry, x = self.decoder(carry, x, self.begins(inputs), masks, initial)
        return carry, x * masks[:, :, layers]
