"""Models: pure functions from parameters to outputs. The only rooms that know Flax; one file each, found by its name.

A model file has `build(config.model, spec) -> SequenceModel`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Params = Any  # nested dict of arrays
Cache = Any  # pytree of arrays, first dimension = batch


class SequenceModel(NamedTuple):
    """An autoregressive model of token sequences, as pure functions over a nested dict of arrays.

    Inputs are tokens of the vocabulary 0..vocab-1, or `vocab` itself: the input-only beginning-of-sequence token. On reading it
    the model forgets everything before it in that row (not its context), so packed documents never see one another.
    A model without `context_vocab` ignores its context, which is then None.

    init(key) -> params
    apply(params, inputs, context=None, keys=None) -> logits
        inputs (batch, length) int -> logits (batch, length, vocab) float32; logits[:, t] is the law of the token that follows
        inputs[:, :t+1]. context: (batch, positions) int tokens of 0..context_vocab-1, or None. keys: (batch,) PRNG keys, one an
        example, that switch dropout on: what is dropped in a row depends on its own key alone.
    start(params, batch, length, context=None) -> cache
        An empty decoding cache for at most `length` steps.
    step(params, cache, token) -> (cache, logits)
        token (batch,) -> logits (batch, vocab); scanned over the inputs it equals apply.
    """

    init: Callable[..., Params]
    apply: Callable[..., Any]
    start: Callable[..., Cache]
    step: Callable[..., Any]
    vocab: int
