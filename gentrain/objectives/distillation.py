"""Distillation: the dial from KL[P||Q] to KL[Q||P] when P is a model, by its own probabilities and without a critic."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from gentrain import decode, schedules
from gentrain.datasets.spec import Spec
from gentrain.divergences import normalised_js_from_logits
from gentrain.errors import ConfigError
from gentrain.heads import Head, head_divergence, head_scores
from gentrain.losses import masked_sum, token_nll
from gentrain.models.base import Params, SequenceModel, at_positions, before_logits, token_nlls
from gentrain.models.feeding import example_keys
from gentrain.objectives import lessons, preflight, teachers
from gentrain.objectives.base import Batch, Loss, Objective, generator_of
from gentrain.objectives.distillation_options import OF_DRAWN, Options
from gentrain.objectives.token_estimators import ESTIMATORS
from gentrain.sums import Metric, Sum

METRICS = {
    "generator/divergence": Metric("nats/token", "lower", "JS_pi / (pi (1 - pi)) of the conditionals, on the prefixes"),
    "generator/entropy": Metric("nats/token", None, "entropy of the student's conditionals on these prefixes"),
    "generator/teacher_nll": Metric("nats/token", None, "the teacher's negative log-likelihood of these sequences"),
    "generator/nll": Metric("nats/token", "lower", "the student's negative log-likelihood of the data"),
}
DRAWS = 2**32 - 2  # keys of what is drawn are apart from those of dropout, which are of rows
COINS = 2**32 - 3
Numbers = Float[Array, "batch length"]
Tokens = Int[Array, "batch length"]
Mask = Bool[Array, "batch length"]


class Prefixes(NamedTuple):
    """The sequences whose prefixes are learned on. mask: the tokens that count; log_drawn: the logarithm of the
    probability with which each was drawn, where that is not the student's own as it is now, or None."""

    tokens: Tokens
    mask: Mask
    log_drawn: Numbers | None = None


@dataclass(frozen=True)
class Distillation(Objective):
    """Level 'token': E sum_t JS_pi[P(.|x_<t) || Q(.|x_<t)] / (pi (1 - pi)), P the teacher, Q the student, by a sum over
    the vocabulary, with no gradient through the prefixes: KL[P||Q] at pi = 0, KL[Q||P] at pi = 1 (Huszár 2015; GKD,
    Agarwal et al. 2024). On the teacher's prefixes at pi = 0, and on none else, it is that of whole sequences.

    Level 'sequence': JS_pi[P||Q] / (pi (1 - pi)) of whole sequences x ~ Q. With the posterior of the prefix w_t =
    pi P(x_<t) / M(x_<t), M = pi P + (1 - pi) Q, and m_t = w_t P(.|x_<t) + (1 - w_t) Q(.|x_<t), held fixed, it has the
    gradient

        1/pi E_Q sum_t [ grad KL[Q(.|x_<t) || m_t] + grad log Q(x_t|x_<t) sum_{s > t} log Q(x_s|x_<s) / m_s(x_s) ],

    the first by a sum over the vocabulary (Single), the second by the tokens that were drawn (Long). At pi = 1 it is
    MiniLLM (Gu et al. 2023).
    """

    model: SequenceModel
    teacher: SequenceModel  # of each frozen player: see the option teachers
    options: Options
    steps: int
    frozen: tuple[str, ...] = ("teacher",)
    spared: tuple[str, ...] = ()  # the teacher, where batches have what is learned of it
    players: tuple[str, ...] = ("generator",)
    splittable: bool = True

    def init(self, key, batch):
        teacher = {player: self.teacher.init(jax.random.fold_in(key, 1)) for player in self.frozen}
        return {"generator": self.model.init(key)} | teacher, {}

    def teach(self, params, batch, top_k):
        if len(self.frozen) > 1:
            raise ConfigError(f"distillation.teachers={len(self.frozen)}: expected 1 teacher to be asked beforehand")
        return lessons.teach(self.teacher, params["teacher"], batch, top_k)

    def check_ready(self, params, batch, mesh):
        if self.options.preflight and self.frozen:
            rows = batch()
            for player in self.frozen:
                preflight.check(self.teacher, params[player], rows, mesh, self.options.preflight)

    def loss(self, player, params, carry, batch, key, step):
        share = self.options.likelihood
        nll = self.nll(params, batch, key) if share else None
        if share == 1:
            return nll, {"nll": nll}
        prefixes = Prefixes(*batch["drawn"]) if "drawn" in batch else self.prefixes(params, batch, key, step)
        of_level = self.token_loss if self.options.level == "token" else self.sequence_loss
        total, metrics = of_level(params, batch, prefixes, key)
        if nll is None:
            return total, metrics
        both = jax.tree.map(lambda of_teacher, of_data: (1 - share) * of_teacher + share * of_data, total, nll)
        return both, metrics | {"nll": nll}

    def nll(self, params: dict[str, Params], batch: Batch, key: Array) -> Sum:
        """The student's negative log-likelihood of the data, nats."""
        return masked_sum(*self.model.batch_nll(params["generator"], batch, example_keys(key, batch["row"])))

    def draw(self, params, batch, key, step):
        if self.options.updates == 1 or self.options.likelihood == 1:
            return {}
        return {"drawn": self.prefixes(params, batch, key, step)}

    def prefixes(self, params: dict[str, Params], batch: Batch, key: Array, step: Array) -> Prefixes:
        """The sequences of this step, by the option `prefixes`."""
        whose, prompt = self.options.prefixes, self.options.prompt
        after_prompt = (jnp.arange(batch["mask"].shape[1]) >= prompt)[None, :]
        real = Prefixes(batch["tokens"], batch["mask"] & after_prompt)
        if whose == "data":
            return real
        drawn = self.sequences(params, batch, key)
        drawn = drawn._replace(mask=drawn.mask & batch["mask"][:, :1] & after_prompt)
        if whose != "mixed":
            return drawn
        last = self.options.student_share
        first = 0.0 if self.options.share_schedule == "linear" else last
        share = schedules.between(first, last, self.steps)(step)
        coins = jax.vmap(jax.random.uniform)(example_keys(jax.random.fold_in(key, COINS), batch["row"]))
        own = (coins < share)[:, None]
        return Prefixes(jnp.where(own, drawn.tokens, real.tokens), jnp.where(own, drawn.mask, real.mask))

    def sequences(self, params: dict[str, Params], batch: Batch, key: Array) -> Prefixes:
        """Sequences of the student's, of the teacher's, or of a mixture of both, after the prompts of the batch."""
        of_teacher, share = self.options.prefixes == "teacher", self.options.teacher_share
        model = self.teacher if of_teacher else self.model
        given = jax.lax.stop_gradient(params["teacher" if of_teacher else "generator"])
        if share:
            model = teachers.mixed(self.model, self.teacher, share)
            given = {"student": given, "teacher": params["teacher"]}
        keys = example_keys(jax.random.fold_in(key, DRAWS), batch["row"])
        drawn = decode.sample_after(model, given, keys, batch["tokens"], self.options.prompt, batch.get("context"))
        return Prefixes(drawn.tokens, drawn.mask, drawn.log_prob if share or self.options.updates > 1 else None)

    def token_loss(self, params: dict[str, Params], batch: Batch, prefixes: Prefixes, key: Array) -> Loss:
        """The divergence of the conditionals at every prefix."""
        if lessons.LOG_PROBS in batch:
            return self.token_loss_of_top(params, batch, prefixes, key)
        heads = self.model.head and self.teacher.head and len(self.frozen) == 1
        if heads and self.model.chunk and self.options.estimator == "exact":
            return self.token_loss_of_heads(params, batch, prefixes, key)

        def divergence(logits, teacher_x, tokens):
            logits, teacher = self.cooled(params, logits, teacher_x)
            value = normalised_js_from_logits(teacher, logits, self.options.real_prior)
            return self.estimate(teacher, logits, tokens, value), value, entropy(logits), token_nll(teacher, tokens)[0]

        loss, value, spread, teacher_nll = self.at_prefixes(params, batch, prefixes, key, divergence, prefixes.tokens)
        metrics = {"divergence": masked_sum(value, prefixes.mask)} | self.metrics(spread, teacher_nll, prefixes.mask)
        return masked_sum(self.weight(params, batch, prefixes) * loss, prefixes.mask), metrics

    def token_loss_of_heads(self, params: dict[str, Params], batch: Batch, prefixes: Prefixes, key: Array) -> Loss:
        """token_loss, without ever holding the logits of the vocabulary; the student's entropy is not told."""
        inputs, context = self.model.inputs(prefixes.tokens), batch.get("context")

        def layer(model, player, temperature, x):
            head = model.head(params[player])
            return x / temperature, Head(head.kernel, None if head.bias is None else head.bias / temperature)

        options = self.options
        x = before_logits(self.model, params["generator"], inputs, context, example_keys(key, batch["row"]))
        taught, teacher = layer(self.teacher, "teacher", options.teacher_temperature, self.asked(params, batch, inputs))
        x, student = layer(self.model, "generator", options.student_temperature, x)
        value = head_divergence(taught, teacher, x, student, options.real_prior)
        teacher_nll = masked_sum(head_scores(taught, teacher, prefixes.tokens).nll, prefixes.mask)
        loss = masked_sum(self.weight(params, batch, prefixes) * value, prefixes.mask)
        return loss, {"divergence": masked_sum(value, prefixes.mask), "teacher_nll": teacher_nll}

    def weight(self, params: dict[str, Params], batch: Batch, prefixes: Prefixes) -> Numbers:
        """Of the divergence at each prefix, by the option importance: a sum over the vocabulary has drawn no token."""
        options, inputs = self.options, self.model.inputs(prefixes.tokens)
        if prefixes.log_drawn is None or options.importance == "none":
            return jnp.ones(prefixes.tokens.shape)
        fixed = jax.lax.stop_gradient(params["generator"])
        nll = token_nlls(self.model, fixed, inputs, prefixes.tokens, batch.get("context"), None)
        of_token, before = importance(prefixes, -nll)
        of_token = of_token if options.estimator in OF_DRAWN else jnp.ones_like(of_token)
        return of_token * before if options.importance == "prefix" else of_token

    def token_loss_of_top(self, params: dict[str, Params], batch: Batch, prefixes: Prefixes, key: Array) -> Loss:
        """token_loss, by the likeliest of the teacher's tokens, which are beside the batch, and nothing else of it."""
        options = self.options

        def divergence(logits, top_p, tokens):
            log_q = logits / options.student_temperature
            top_q = jnp.take_along_axis(jax.nn.log_softmax(log_q), tokens, axis=-1)
            return ESTIMATORS[options.estimator](top_p, top_q, tokens[..., 0], options.top_k), entropy(log_q)

        inputs, keys = self.model.inputs(prefixes.tokens), example_keys(key, batch["row"])
        arrays, context = (batch[lessons.LOG_PROBS], batch[lessons.TOKENS]), batch.get("context")
        generator = params["generator"]
        loss, spread = at_positions(self.model, generator, divergence, inputs, *arrays, context=context, keys=keys)
        return masked_sum(loss, prefixes.mask), {"entropy": masked_sum(spread, prefixes.mask)}

    def estimate(self, teacher: Array, logits: Array, tokens: Array, value: Array) -> Array:
        """What is minimised at each position, by the option `estimator`; value: the divergence itself."""
        name = self.options.estimator
        if name == "exact":
            return value
        log_p, log_q = jax.nn.log_softmax(teacher), jax.nn.log_softmax(logits)
        return ESTIMATORS[name](log_p, log_q, tokens, self.options.top_k)

    def sequence_loss(self, params: dict[str, Params], batch: Batch, prefixes: Prefixes, key: Array) -> Loss:
        """What has the gradient of the sequences' divergence; the weight is that of the tokens."""
        pi, mask = self.options.real_prior, prefixes.mask
        log_p, log_q = self.log_probs(params, batch, prefixes, key)
        ratio = jnp.cumsum(jnp.where(mask, log_p - log_q, 0.0), axis=1)
        before = jnp.pad(ratio[:, :-1], ((0, 0), (1, 0)))  # log P/Q of the prefix
        cost = jnp.where(mask, log_q - mixture(log_p, log_q, before, pi), 0.0)
        weight, later = self.weigh(prefixes, log_q, cost)

        def surrogate(logits, teacher_x, tokens, before, weight, later):
            logits, teacher = self.cooled(params, logits, teacher_x)
            log_student, log_teacher = jax.nn.log_softmax(logits), jax.nn.log_softmax(teacher)
            fixed = jax.lax.stop_gradient(mixture(log_teacher, log_student, before[..., None], pi))
            single = jnp.sum(jnp.exp(log_student) * (log_student - fixed), axis=-1)
            long = later * jnp.take_along_axis(log_student, tokens[..., None], axis=-1)[..., 0]
            value = normalised_js_from_logits(teacher, logits, pi)
            return (weight * single + long) / pi, value, entropy(logits), token_nll(teacher, tokens)[0]

        arrays = (prefixes.tokens, before, weight, later)
        loss, value, spread, teacher_nll = self.at_prefixes(params, batch, prefixes, key, surrogate, *arrays)
        metrics = {"divergence": masked_sum(jax.lax.stop_gradient(value), mask)}
        return masked_sum(loss, mask), metrics | self.metrics(spread, teacher_nll, mask)

    def weigh(self, prefixes: Prefixes, log_q: Numbers, cost: Numbers) -> tuple[Numbers, Numbers]:
        """Weights of Single at each position, and the factor of grad log Q there, Long: the weighted cost of what comes
        later, by the options importance, long_term, baseline and clip. cost: log Q/M of each token, 0 where none is."""
        options, mask = self.options, prefixes.mask
        of_token, before = importance(prefixes, log_q)
        if options.importance == "prefix":
            own = before * of_token
            later = self.later(own * cost, mask)
            return before, later - own * self.expected(later, mask)
        own = of_token if options.importance == "token" else jnp.ones_like(of_token)
        later = self.later(cost, mask)
        later = later - self.expected(later, mask)
        kept = jnp.where(later > 0, own >= 1 - options.clip, own <= 1 + options.clip) | (options.clip == 0)
        return own, jnp.where(kept, own * later, 0.0)

    def expected(self, later: Numbers, mask: Mask) -> Numbers:
        """What is expected to come later, by the option baseline: subtracting it leaves the mean gradient as it is."""
        if self.options.baseline == "none":
            return jnp.zeros_like(later)
        alive = jnp.where(mask, later, 0.0)
        others = jnp.sum(mask, axis=0, keepdims=True) - mask
        return (jnp.sum(alive, axis=0, keepdims=True) - alive) / jnp.maximum(others, 1)

    def log_probs(
        self, params: dict[str, Params], batch: Batch, prefixes: Prefixes, key: Array
    ) -> tuple[Numbers, Numbers]:
        """log P and log Q of each token of the sequences, without a gradient."""
        fixed = jax.lax.stop_gradient(params)

        def of_tokens(logits, teacher_x, tokens):
            logits, teacher = self.cooled(fixed, logits, teacher_x)
            return -token_nll(teacher, tokens)[0], -token_nll(logits, tokens)[0]

        return self.at_prefixes(fixed, batch, prefixes, key, of_tokens, prefixes.tokens)

    def later(self, rewards: Numbers, mask: Mask) -> Numbers:
        """What later tokens add to the gradient of each: the sum of log Q/M over them, or its mean, or nothing."""
        if self.options.long_term == "none":
            return jnp.zeros_like(rewards)
        total = jnp.cumsum(rewards[:, ::-1], axis=1)[:, ::-1] - rewards
        if self.options.long_term == "sum":
            return total
        left = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1] - mask
        return total / jnp.maximum(left, 1)

    def at_prefixes(self, params, batch: Batch, prefixes: Prefixes, key: Array, function, *arrays: Array):
        """function(student's logits, what the teacher's are made of, *arrays) at every position."""
        inputs, context = self.model.inputs(prefixes.tokens), batch.get("context")
        teacher_x = self.asked(params, batch, inputs)
        keys = example_keys(key, batch["row"])
        return at_positions(
            self.model, params["generator"], function, inputs, teacher_x, *arrays, context=context, keys=keys
        )

    def asked(self, params: dict[str, Params], batch: Batch, inputs: Tokens) -> Array:
        """What the teacher makes logits of at every position; where it was asked before, the batch has it."""
        if lessons.HIDDEN in batch:
            return batch[lessons.HIDDEN]
        if len(self.frozen) > 1:
            sources = batch["source"] if self.options.teachers_by == "source" else None
            weights = teachers.weigh(sources, len(inputs), len(self.frozen))
            return teachers.ask(
                self.teacher, [params[own] for own in self.frozen], inputs, batch.get("context"), weights
            )
        return before_logits(self.teacher, params["teacher"], inputs, batch.get("context"))

    def cooled(self, params: dict[str, Params], logits: Array, teacher_x: Array) -> tuple[Array, Array]:
        """Logits of student and teacher, each by its temperature."""
        if len(self.frozen) > 1:
            teacher = teachers.mean(self.teacher, [params[own] for own in self.frozen], teacher_x)
        else:
            teacher = self.teacher.logits(params["teacher"], teacher_x)
        return logits / self.options.student_temperature, teacher / self.options.teacher_temperature

    def metrics(self, spread: Numbers, teacher_nll: Numbers, mask: Mask) -> dict[str, Sum]:
        return {"entropy": masked_sum(spread, mask), "teacher_nll": masked_sum(teacher_nll, mask)}


def importance(prefixes: Prefixes, log_q: Numbers) -> tuple[Numbers, Numbers]:
    """Q / the law that drew, of each token and of all tokens before it; 1 where that was Q itself."""
    if prefixes.log_drawn is None:
        return jnp.ones_like(log_q), jnp.ones_like(log_q)
    log_ratio = jnp.where(prefixes.mask, log_q - prefixes.log_drawn, 0.0)
    return jnp.exp(log_ratio), jnp.exp(jnp.cumsum(log_ratio, axis=1) - log_ratio)


def entropy(logits: Float[Array, "batch length vocab"]) -> Numbers:
    """-sum Q log Q, nats."""
    log_q = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.exp(log_q) * log_q, axis=-1)


def mixture(log_p: Array, log_q: Array, ratio: Array, real_prior: float) -> Array:
    """log of w P + (1 - w) Q, w the posterior of a prefix of which `ratio` is log P/Q."""
    if real_prior == 1:
        return log_p
    logit = ratio + jnp.log(real_prior) - jnp.log1p(-real_prior)
    return jnp.logaddexp(jax.nn.log_sigmoid(logit) + log_p, jax.nn.log_sigmoid(-logit) + log_q)


def build(config: ConfigDict, spec: Spec) -> Distillation:
    """Raises ConfigError for prompts that leave nothing to learn, or that stand beside contexts."""
    options = Options.read(config.objective, config.distillation)
    if options.prompt >= spec.length:
        raise ConfigError(f"distillation.prompt={options.prompt}: expected less than the {spec.length} tokens of a row")
    if options.top_k > spec.vocab:
        raise ConfigError(
            f"distillation.top_k={options.top_k}: expected at most the {spec.vocab} tokens that there are"
        )
    if options.prompt and spec.context_vocab:
        raise ConfigError(f"distillation.prompt={options.prompt}: expected 0, since the data have contexts")
    teacher = generator_of(config, spec, "teacher", "teacher")
    if options.teachers_by == "source" and spec.sources != options.teachers:
        raise ConfigError(
            f"distillation.teachers_by='source': expected data.name='mixture' of {options.teachers} sources, one for"
            f" each teacher, not {spec.sources}"
        )
    frozen, spared = lessons.players(options, spec)
    moves, splittable = ("generator",) * options.updates, options.baseline == "none"
    return Distillation(generator_of(config, spec), teacher, options, config.steps, frozen, spared, moves, splittable)
