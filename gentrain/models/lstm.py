"""A multi-layer LSTM; a context is read by a second LSTM whose last state is the first one's initial state."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped
from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.models.base import Cache, Inputs, SequenceModel
from gentrain.models.layers import TokenModel, by_rows, flat, keep_mask, remat, sequence_model, unit_variance
from gentrain.models.lstm_options import Options

State = tuple[Float[Array, "batch width"], Float[Array, "batch width"]]  # of a layer: cell (float32), hidden
Carry = tuple[State, ...]  # the states of all layers


def build(config: ConfigDict, spec: Spec) -> SequenceModel:
    """The LSTM over the tokens of spec."""
    return sequence_model(LSTM(Options.of(config), spec))


def step_cell(
    kernel: Float[Array, "width gates"], state: State, gates: Float[Array, "batch gates"]
) -> tuple[State, Float[Array, "batch width"]]:
    """One step of one layer, gates being what its input and its bias contribute."""
    cell, hidden = state
    i, f, g, o = jnp.split(gates + hidden @ kernel, 4, axis=-1)
    # The cell is a sum over time: in float32, or small terms would be lost in bfloat16.
    cell = nn.sigmoid(f + 1).astype(jnp.float32) * cell + (nn.sigmoid(i) * nn.tanh(g)).astype(jnp.float32)
    hidden = nn.sigmoid(o) * nn.tanh(cell).astype(gates.dtype)
    return (cell, hidden), hidden


def unroll(
    step: Callable,
    kernel: Float[Array, "width gates"],
    state: State,
    gates: Float[Array, "batch length gates"],
    bos: Bool[Array, "batch length"],
    initial: State,
) -> tuple[State, Float[Array, "batch length width"]]:
    """step_cell over the positions: the last state, and the hidden states. Where bos holds a row goes on from initial.

    The kernel's gradient is one matmul after the backward scan. Left to JAX it is summed up position by position, and
    on a mesh added up over the devices at every one of them.
    """

    def advance(state, position):
        gates, bos = position
        state = jax.tree.map(lambda first, last: jnp.where(bos[:, None], first, last), initial, state)
        return step(kernel, state, gates)

    last, hidden = jax.lax.scan(advance, state, (gates.swapaxes(0, 1), bos.T))
    return last, hidden.swapaxes(0, 1)


def unroll_forward(step, kernel, state, gates, bos, initial):
    def without_kernel(state, gates, initial):
        return unroll(step, kernel, state, gates, bos, initial)

    (last, hidden), pull = jax.vjp(without_kernel, state, gates, initial)
    before = jnp.concatenate([state[1][:, None], hidden[:, :-1]], axis=1)
    before = jnp.where(bos[:, :, None], initial[1][:, None], before)
    return (last, hidden), (pull, before)


def unroll_backward(step, residuals, cotangents):
    pull, before = residuals
    of_state, of_gates, of_initial = pull(cotangents)
    of_kernel = flat(before).T @ flat(of_gates)
    return of_kernel, of_state, of_gates, None, of_initial


unroll_layer = jax.custom_vjp(unroll, nondiff_argnums=(0,))
unroll_layer.defvjp(unroll_forward, unroll_backward)


class Recurrent(nn.Module):
    """The parameters U and b of a layer."""

    param_dtype: str

    @nn.compact
    def __call__(self, width: int) -> tuple[Float[Array, "width gates"], Float[Array, "gates"]]:
        kernel = self.param("kernel", unit_variance, (width, 4 * width), self.param_dtype)
        return kernel, self.param("bias", nn.initializers.zeros, (4 * width,), self.param_dtype)


class Layer(nn.Module):
    """One layer over a piece of a sequence.

    i, f, g, o = x W + h U + b;  c' = sigmoid(f + 1) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')
    The 1 opens the forget gate at the start of training. x (batch, length, width) may be given as x W, of 4 width.
    Hochreiter & Schmidhuber 1997, Gers et al. 2000.
    """

    config: Options

    @nn.compact
    def __call__(
        self, state: State, x: Float[Array, "batch length _"], bos: Bool[Array, "batch length"], initial: State
    ) -> tuple[State, Float[Array, "batch length width"]]:
        width, param_dtype = self.config.width, self.config.param_dtype
        if x.shape[-1] == width:
            dtypes: Any = {"dtype": x.dtype, "param_dtype": param_dtype, "kernel_init": unit_variance}
            x = by_rows(nn.Dense(4 * width, use_bias=False, name="input", **dtypes), x)
        kernel, bias = Recurrent(param_dtype, name="recurrent")(width)
        step = remat(step_cell, self.config.remat, scanned=True, checkpoint=jax.checkpoint)
        return unroll_layer(step, kernel.astype(x.dtype), state, x + bias.astype(x.dtype)[None, None, :], bos, initial)


class Stack(nn.Module):
    """All layers over a piece of a sequence; rows that read a beginning of sequence go on from their initial state.

    masks: what dropout keeps of each layer's input and, last, of the output, which is not multiplied here.
    """

    config: Options

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        x: Float[Array, "batch length _"],
        bos: Bool[Array, "batch length"],
        masks: Float[Array, "batch length sites width"] | None,
        initial: Carry,
    ) -> tuple[Carry, Float[Array, "batch length width"]]:
        states = []
        for number, (state, first) in enumerate(zip(carry, initial, strict=True)):
            x = x if masks is None else x * masks[:, :, number]
            state, x = Layer(self.config, name=f"layer_{number}")(state, x, bos, first)
            states.append(state)
        return tuple(states), x


class LSTM(TokenModel):
    """Dropout is on each layer's input and on the last output, not on what goes on in time (Zaremba et al. 2014).

    A cache has `carry`, the states of all layers, and `initial`, those with which a sequence begins.
    """

    config: Options

    def setup(self) -> None:
        super().setup()
        self.decoder = Stack(self.config)
        if self.context_vocab:
            self.encoder = Stack(self.config)

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
