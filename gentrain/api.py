"""A trained run, or a published model, in a notebook:

run = gentrain.load("runs/surnames_likelihood")
run.sample(8, temperature=0.8)
run.log_prob(["smith", "qqqq"])
run.params

model = gentrain.load("hf:DIR")
model.generate(["Once upon a time"], length=40)[0].text
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from gentrain import decode, plugins, pretrained, sharding, train
from gentrain.best import step_of
from gentrain.datasets import build, fetch, published_tokenizer
from gentrain.datasets.spec import Spec, TextSpec
from gentrain.errors import ConfigError
from gentrain.evaluators.base import make_draw
from gentrain.losses import token_nll
from gentrain.models.base import SequenceModel, at_positions
from gentrain.models.feeding import example_keys
from gentrain.options import identity, tree
from gentrain.options.fit import fit
from gentrain.published import families

LENGTH = 256  # the most tokens of a sample from a published model, which has no data.length
ROUND = 32  # rows are padded to multiples of so many tokens, so that other lengths seldom compile anew


def load(
    name: str | Path, allow: Collection[str] = (), *, step: int | str | None = None, averaged: bool = True
) -> "Loaded":
    """A run by its workdir, or a published model by its name, as 'hf:DIR'.

    Of a run it is the newest undamaged checkpoint, or that of a step (a number, 'best' or 'last'), with what is needed
    to use it; its data are not read. averaged: the parameters that were averaged over steps, where the run has them.
    allow: ('data',) where its tokenizer may have changed since, as the flag --allow. Raises CheckpointError where there
    is none or it is damaged, and ConfigError for the workdir of another version, for a model of an unknown family, and
    where 'best' is not known.
    """
    if families.is_published(name):
        return of_published(str(name))
    return of_run(Path(name).expanduser().absolute(), allow, step, averaged)


def of_run(workdir: Path, allow: Collection[str], step: int | str | None, averaged: bool) -> "Loaded":
    """A good checkpoint in a workdir."""
    config = identity.saved(workdir).copy_and_resolve_references()
    config.evaluate.evaluators = ()
    config.mesh.update(replica=1, data=1, fsdp=1, sequence=1, tensor=1, rules=())
    run = train.build(config, workdir, sharding.one_device(), data=build.stored(workdir))
    state, step, _ = train.restored(run, allow, step_of(workdir, step))
    params = train.evaluated_params(state if averaged else replace(state, ema={}))["generator"]
    return Loaded(config, run.data.spec, run.program.objective.model, params, step)


def of_published(name: str) -> "Loaded":
    """A published model, in float32."""
    config = tree.default_config()
    config.init_from = name
    fit(config)
    published = fetch.published(name)
    tokenizer = published_tokenizer.of(published)
    config.data.length = LENGTH
    spec = TextSpec(tokenizer.vocab, LENGTH, tokenizer.end, tokenizer=tokenizer)
    model = plugins.load("models", config.model.name).build(config.model, spec)
    mesh = sharding.one_device()
    with sharding.inside(mesh):
        shapes = sharding.shard(jax.eval_shape(model.init, jax.random.key(0)), mesh)
    return Loaded(config, spec, model, pretrained.restore(published, config.model, shapes))


def rounded(count: int) -> int:
    """The least multiple of ROUND that is no less, and not 0."""
    return -(-max(count, 1) // ROUND) * ROUND


class Law(NamedTuple):
    """What is drawn from in place of a model's own law: see decode.filter_logits."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def filter(self, logits: jax.Array) -> jax.Array:
        return decode.filter_logits(logits, *self)


class Continuation(NamedTuple):
    """What follows a prompt. log_prob: of its tokens, by the law that they were drawn from, nats; ended: whether the
    end token closed it."""

    text: str
    tokens: np.ndarray
    log_prob: float
    ended: bool


class Loaded:
    """A generator with what is needed to use it.

    params: its parameters, averaged ones where the run has them; step: the checkpoint's, 0 of a published model;
    config, spec, model: the run's.
    """

    def __init__(self, config: ConfigDict, spec: Spec, model: Any, params: Any, step: int = 0):
        self.config, self.spec, self.model, self.params, self.step = config, spec, model, params, step
        self.mesh = sharding.one_device()
        self.compiled: dict[Any, Callable] = {}  # by what it does

    def sample(
        self,
        count: int,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        length: int = 0,
    ) -> list[str] | np.ndarray:
        """`count` texts, images (count, height, width, channels) uint8, or points (count, d) float32.

        The same seed draws the same samples. temperature, top_k and top_p are for models of tokens; those that draw
        images or points whole have none. length: the most tokens, 0: as many as a row of the data has. Raises
        ConfigError for a model with contexts.
        """
        self.check_contexts()
        law = Law(temperature, top_k, top_p).filter
        draw = make_draw(self.model, self.mesh, length or self.spec.length, end=self.spec.end, law=law)
        samples = jax.device_get(draw(self.params, jax.random.key(seed), np.arange(count)))
        if not isinstance(self.model, SequenceModel):
            images = samples.ndim == 4
            return np.round((samples + 1) * 127.5).astype(np.uint8) if images else samples
        decoded = [self.spec.decode(self.without_end(*row)) for row in zip(samples.tokens, samples.mask, strict=True)]
        return decoded if isinstance(self.spec, TextSpec) else np.stack(decoded)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        length: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Continuation]:
        """A continuation of each prompt, of at most `length` tokens (0: as many as a row of the data has).

        The same seed and the same prompts give the same continuations; a prompt that is there twice has two of them.
        Raises ConfigError for a model that is not of texts alone.
        """
        return self.go_on(prompts, length, Law(temperature, top_k, top_p), jax.random.key(seed))

    def go_on(self, prompts: Sequence[str], length: int, law: Law, key: jax.Array) -> list[Continuation]:
        """`generate`, by a law and a key."""
        tokens = [self.tokenizer.encode_text(prompt) for prompt in prompts]
        lengths = np.array([len(one) for one in tokens], np.int32)
        padded = np.zeros((len(tokens), rounded(lengths.max(initial=0))), np.int32)
        for row, one in zip(padded, tokens, strict=True):
            row[: len(one)] = one
        length, known = length or self.spec.length, int(lengths.min(initial=0) // ROUND * ROUND)
        samples = jax.device_get(self.drawer(law, known, length)(self.params, key, padded, lengths))
        rows = zip(samples.tokens, samples.mask, samples.log_prob, lengths, strict=True)
        return [self.continuation(*(part[given : given + length] for part in parts)) for *parts, given in rows]

    def drawer(self, law: Law, known: int, length: int) -> Callable:
        """draw(params, key, tokens (n, longest), lengths (n,)) -> Samples, compiled at the first call of its kind."""
        if (kind := ("draw", law, known, length)) not in self.compiled:
            model = decode.change_law(self.model, law.filter)

            def draw(params, key, tokens, lengths):
                keys = example_keys(key, jnp.arange(len(tokens), dtype=jnp.int32))
                prompts = decode.Prompts(tokens, lengths, known)
                return decode.go_on(model, params, keys, prompts, length, end=self.spec.end)

            self.compiled[kind] = sharding.compile_on(self.mesh, draw)
        return self.compiled[kind]

    def continuation(self, tokens: np.ndarray, mask: np.ndarray, log_prob: np.ndarray) -> Continuation:
        """What was drawn after a prompt."""
        drawn = tokens[mask]
        ended = self.spec.end is not None and bool((drawn == self.spec.end).any())
        text = self.spec.decode(self.without_end(drawn, np.ones(len(drawn), bool)))
        return Continuation(text, drawn, float(log_prob[mask].sum()), ended)

    def stream(
        self,
        prompt: str,
        *,
        length: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """The continuation of a prompt piece by piece, as it is drawn; the same as that of `generate`."""
        tokens = self.tokenizer.encode_text(prompt)
        length = length or self.spec.length
        model = decode.change_law(self.model, Law(temperature, top_k, top_p).filter)
        room = rounded(len(tokens) + length)
        read, advance = self.stepwise(model, len(tokens), room)
        keys = example_keys(jax.random.key(seed), np.arange(1, dtype=np.int32))
        cache, token = read(self.params, tokens[None])
        drawn: list[int] = []
        said = ""
        for position in range(len(tokens), len(tokens) + length):
            cache, token = advance(self.params, cache, token, keys, position)
            if int(token[0]) == self.spec.end:
                break
            drawn.append(int(token[0]))
            text = self.spec.decode(np.array(drawn))
            if not text.endswith("\ufffd"):  # the rest of a character is still to come
                yield text[len(said) :]
                said = text
        if rest := self.spec.decode(np.array(drawn, np.int32))[len(said) :]:
            yield rest

    def stepwise(self, model: SequenceModel, known: int, room: int) -> tuple[Callable, Callable]:
        """read(params, tokens (1, known)) -> (cache, token to be read next), and advance(params, cache, token, keys,
        position) -> the same a token later; compiled."""

        def read(params, tokens):
            return decode.read_prompts(model, params, decode.Prompts(tokens, jnp.full((1,), known), known), room)

        def advance(params, cache, token, keys, position):
            (cache, token, _), _ = decode.drawing(model, params, keys, None)(
                (cache, token, jnp.ones((1,), bool)), position
            )
            return cache, token

        return sharding.compile_on(self.mesh, read), sharding.compile_on(self.mesh, advance, donate_argnums=1)

    def log_prob(self, examples: Sequence[str] | np.ndarray) -> Float[np.ndarray, "n"]:
        """log Q of each example, nats: texts, sequences of tokens (n, length), or points (n, d).

        The end of a text counts; but a published model scores the tokens that its own tokenizer gives, the first given,
        and an end only where the tokenizer adds one. Raises ConfigError for a model that knows its samples alone, or
        that answers to contexts.
        """
        if self.spec.context_vocab or not hasattr(self.model, "log_prob"):
            raise ConfigError("this model knows no probability of an example by itself")
        if isinstance(self.spec, TextSpec) and self.spec.tokenizer and isinstance(self.model, SequenceModel):
            return -np.array([nlls.sum() for nlls, _ in self.score([*map(self.tokenizer.scored, examples)])])
        log_prob = sharding.compile_on(self.mesh, self.model.log_prob)
        return np.asarray(log_prob(self.params, np.asarray(examples)))

    def score(
        self, rows: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> list[tuple[Float[np.ndarray, "tokens"], Bool[np.ndarray, "tokens"]]]:
        """-log Q of each token given the inputs up to it, nats, and whether it is the likeliest there, of rows of
        (inputs (n,), tokens (n,)) of any length."""
        longest = rounded(max((len(tokens) for _, tokens in rows), default=0))
        padded = np.zeros((2, len(rows), longest), np.int32)
        for number, row in enumerate(rows):
            padded[:, number, : len(row[0])] = row

        def at_each(logits, tokens):
            return token_nll(logits, tokens)[0], jnp.argmax(logits, axis=-1) == tokens

        def scores(params, inputs, tokens):
            return at_positions(self.model, params, at_each, inputs, tokens)

        if "score" not in self.compiled:
            self.compiled["score"] = sharding.compile_on(self.mesh, scores)
        found = jax.device_get(self.compiled["score"](self.params, *padded))
        lengths = [len(tokens) for _, tokens in rows]
        return [(nlls[:n], best[:n]) for nlls, best, n in zip(*found, lengths, strict=True)]

    @property
    def tokenizer(self) -> Any:
        """Raises ConfigError for a model that is not of texts alone."""
        self.check_contexts()
        if not isinstance(self.spec, TextSpec) or self.spec.tokenizer is None:
            raise ConfigError("this model is not of texts, and there is nothing to prompt it with")
        return self.spec.tokenizer

    def check_contexts(self) -> None:
        """Raises ConfigError for a model with contexts."""
        if self.spec.context_vocab:
            raise ConfigError("this model answers to contexts: use `python -m launch --mode=sample` on its run")

    def without_end(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The tokens of a row that count, but for its end."""
        return tokens[mask & (tokens != self.spec.end)]
