"""A trained run in a notebook:

run = gentrain.load("runs/surnames_likelihood")
run.sample(8, temperature=0.8)
run.log_prob(["smith", "qqqq"])
run.params
"""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gentrain import decode, sharding, train
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.evaluators.base import make_draw
from gentrain.models.base import Sampler, SequenceModel, token_nlls
from gentrain.options import identity


def load(workdir: str | Path, allow: Collection[str] = ()) -> "LoadedRun":
    """The newest undamaged checkpoint of a run, with what is needed to use it.

    allow: ('data',) where the data may have changed since, as the flag --allow. Raises CheckpointError where there is
    none or config.json is damaged, ConfigError for the workdir of another version and for changed data, and what
    reading the run's data raises: the tokenizer is in the workdir, the rest of the description of the data is read
    anew.
    """
    workdir = Path(workdir).expanduser().absolute()
    return LoadedRun(identity.saved(workdir), workdir, allow)


class LoadedRun:
    """params: the generator's parameters, averaged ones where the run has them; step: the checkpoint's; config, spec,
    model: the run's."""

    def __init__(self, config: ConfigDict, workdir: Path, allow: Collection[str] = ()):
        unmeasured = config.copy_and_resolve_references()
        unmeasured.evaluate.evaluators = ()
        unmeasured.mesh.update(replica=1, data=1, fsdp=1, sequence=1, tensor=1, rules=())
        mesh = sharding.one_device()
        run = train.build(unmeasured, workdir, mesh)
        state, self.step, _ = train.restored(run, allow)
        self.config, self.workdir, self.spec = config, workdir, run.data.spec
        self.model, self.mesh = run.program.objective.model, mesh
        self.params = train.evaluated_params(state)["generator"]

    def sample(
        self, count: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0
    ) -> list[str] | np.ndarray:
        """`count` texts, images (count, height, width, channels) uint8, or points (count, d) float32.

        The same seed draws the same samples. temperature, top_k and top_p are for models of tokens; those that draw
        images or points whole have none. Raises ConfigError for a model with contexts.
        """
        if self.spec.context_vocab:
            raise ConfigError("this model answers to contexts: use `python -m launch --mode=sample` on its run")
        law = functools.partial(decode.filter_logits, temperature=temperature, top_k=top_k, top_p=top_p)
        draw = make_draw(self.model, self.mesh, self.spec.length, end=self.spec.end, law=law)
        samples = jax.device_get(draw(self.params, jax.random.key(seed), np.arange(count)))
        if not isinstance(self.model, SequenceModel):
            images = samples.ndim == 4
            return np.round((samples + 1) * 127.5).astype(np.uint8) if images else samples
        tokens = (row[mask & (row != self.spec.end)] for row, mask in zip(samples.tokens, samples.mask, strict=True))
        decoded = [self.spec.decode(row) for row in tokens]
        return decoded if isinstance(self.spec, TextSpec) else np.stack(decoded)

    def log_prob(self, examples: Sequence[str] | np.ndarray) -> Float[np.ndarray, "n"]:
        """log Q of each example, nats: texts (their end counts), sequences of tokens (n, length), or points (n, d).

        Raises ConfigError for a model that knows its samples alone, or that answers to contexts.
        """
        if self.spec.context_vocab or isinstance(self.model, Sampler):
            raise ConfigError("this model knows no probability of an example by itself")
        if isinstance(self.spec, TextSpec) and self.spec.encode is not None and isinstance(self.model, SequenceModel):
            return self._log_prob_of_texts(self.model, [self.spec.encode(text) for text in examples])
        log_prob = sharding.compile_on(self.mesh, self.model.log_prob)
        return np.asarray(log_prob(self.params, np.asarray(examples)))

    def _log_prob_of_texts(self, model: SequenceModel, documents: list[np.ndarray]) -> Float[np.ndarray, "n"]:
        """Documents of any length, padded to the longest and closed by the end token."""
        lengths = np.array([len(document) + 1 for document in documents])
        tokens = np.zeros((len(documents), lengths.max(initial=1)), np.int32)
        for row, document in zip(tokens, documents, strict=True):
            row[: len(document) + 1] = [*document, self.spec.end]
        mask = np.arange(tokens.shape[1])[None, :] < lengths[:, None]

        def summed_nll(params, tokens, mask):
            return jax.numpy.sum(token_nlls(model, params, model.inputs(tokens), tokens) * mask, axis=1)

        return -np.asarray(sharding.compile_on(self.mesh, summed_nll)(self.params, tokens, mask))
