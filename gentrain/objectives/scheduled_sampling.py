"""Scheduled sampling: training on what the model itself would have said before (Bengio et al., 2015)."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gentrain import decode, models, plugins, schedules, worlds
from gentrain.data import Spec
from gentrain.errors import ConfigError
from gentrain.losses import cross_entropy, masked_sum, smoothed_nll
from gentrain.metrics import Sum

COINS, NOISE = 2**32 - 1, 2**32 - 2  # apart from the keys of dropout, which are of rows


@dataclass(frozen=True)
class ScheduledSampling:
    """loss = -sum_t log Q(x_t | f_<t), nats a token, where f_i is the true x_i with probability keep_true, else the
    model's own z_i ~ Q(. | f_<i).

    The target stays that of the true prefix, so what it converges to is not the data but (without a gradient through
    z) Q(x_t | f) = E[P(x_t | x_<t) | f]: at keep_true = 0 the product of the position marginals (Huszár, 2015). With
    label 'expert' the target is the world's law after f itself, as in DAgger, and Q = P again.

    Never replaced are padding, the beginning of a sequence and its end. Fed tokens are drawn without dropout. The
    coins and draws of an example are functions of (seed, step, row). Modes 'sequential' and 'exact' feed the same
    tokens. 'passes:K' (Duckworth et al., 2019) draws all tokens K times in parallel, first after the true prefix; at
    K = 1 that is what it stays, so for three tokens and more it is another objective, with a bias of its own.
    """

    model: models.SequenceModel
    end: int | None
    options: ConfigDict  # config.objective
    dropout: float
    expert: Callable[[jax.Array], jax.Array] | None  # inputs (batch, length) -> P(. | f), (batch, length, vocab)
    players: tuple[str, ...] = ("generator",)
    splittable: bool = True

    def init(self, key, batch):
        return {"generator": self.model.init(key)}, {}

    def loss(self, player, params, carry, batch, key, step):
        tokens, mask, own = batch["tokens"], batch["mask"], params[player]
        begins = models.shift_right(tokens, self.model.vocab, self.end) == self.model.vocab
        keep_true = schedules.keep_true(self.options)(step)
        keep = self.kept(tokens, mask, batch["row"], key, keep_true)
        choose = self.chooser(tokens, keep, models.example_keys(jax.random.fold_in(key, NOISE), batch["row"]))
        one = jnp.ones(())
        extra = {"keep_true": Sum(keep_true * one, one), "replaced": masked_sum((~keep).astype(jnp.float32), mask)}
        context = batch.get("context")
        alone = self.model.extend is None and not self.dropout and not self.model.chunk
        if self.options.mode == "sequential" and alone:
            logits, chosen = decode.scanned(self.model, own, choose, begins, context, and_logits=True)
            inputs = models.fed(chosen, begins, self.model.vocab)
            return masked_sum(self.scored(logits, self.target(tokens, inputs)), mask), extra
        chosen, found = self.chosen(own, choose, tokens, keep, begins, context)
        inputs, keys = models.fed(chosen, begins, self.model.vocab), models.example_keys(key, batch["row"])
        target = self.target(tokens, inputs)
        loss = models.at_positions(self.model, own, self.scored, inputs, target, context=context, keys=keys)
        return masked_sum(loss, mask), extra | found

    def kept(self, tokens, mask, row, key, keep_true):
        """Where the true token is fed on: (batch, length) bool."""
        count = tokens.shape[1] if self.options.coin == "token" else 1
        keys = models.example_keys(jax.random.fold_in(key, COINS), row)
        coins = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys) < keep_true
        unread = jnp.arange(tokens.shape[1])[None, :] == tokens.shape[1] - 1
        return coins | ~mask | unread | (False if self.end is None else tokens == self.end)

    def chooser(self, tokens, keep, keys):
        """choose(logits, positions): the true tokens where they are kept, else the model's, or a mixture of them."""
        at = lambda values, positions: jnp.take_along_axis(values, positions, axis=1)
        if self.options.feed in ("sample", "argmax"):
            name = self.options.draw if self.options.feed == "sample" else "argmax"
            own = decode.chooser(name, keys, tokens.shape[1])
            return lambda logits, positions: jnp.where(
                at(keep, positions), at(tokens, positions), own(jax.lax.stop_gradient(logits), positions)
            )

        def mixed(logits, positions):
            noise = decode.gumbel(keys, positions, logits.shape[-1]) if self.options.feed == "gumbel_softmax" else 0.0
            weights = jax.nn.softmax(self.options.soft_alpha * (logits + noise), axis=-1)
            true = jax.nn.one_hot(at(tokens, positions), self.model.vocab)
            weights = jnp.where(at(keep, positions)[..., None], true, weights)
            weights = weights if self.options.feed_gradient else jax.lax.stop_gradient(weights)
            return jnp.pad(weights, ((0, 0), (0, 0), (0, 1)))  # no weight on BOS

        return mixed

    def chosen(self, params, choose, tokens, keep, begins, context):
        """What is fed after each position, and metrics of finding it."""
        options, model = self.options, self.model
        params = params if options.feed_gradient else jax.lax.stop_gradient(params)
        if options.mode == "sequential":
            return decode.scanned(model, params, choose, begins, context), {}
        rounds = int(options.mode.partition(":")[2] or 0)
        if options.feed in ("soft_argmax", "gumbel_softmax"):
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None, :], tokens.shape)
            again = lambda mixed: choose(
                model.apply(params, models.fed(mixed, begins, model.vocab), context), positions
            )
            true = jax.nn.one_hot(tokens, model.vocab + 1)
            return jax.lax.scan(lambda mixed, _: (again(mixed), None), true, length=rounds)[0], {}
        # Certain is enough up to the last token that is not kept.
        needed = jnp.max(jnp.where(keep, 0, jnp.arange(1, tokens.shape[1] + 1)[None, :]), axis=1)
        found = decode.fixed_point(
            model,
            params,
            choose,
            begins,
            tokens,
            finished=lambda _, resolved: resolved >= needed,
            context=context,
            window=0 if rounds else options.window,
            max_passes=rounds or options.max_passes,
        )
        unresolved = jnp.maximum(needed - found.resolved, 0).astype(jnp.float32)
        one = jnp.ones(())
        return found.tokens, {
            "passes": Sum(found.passes * one, one),
            "unresolved": Sum(unresolved.sum(), needed.size * one),
        }

    def target(self, tokens, inputs):
        """What is learned after what was fed: the data's tokens, or the expert's laws."""
        return tokens if self.expert is None else self.expert(inputs)

    def scored(self, logits, target):
        """The loss of each position, nats (batch, length)."""
        if self.expert is not None:
            return cross_entropy(target, logits)
        return smoothed_nll(logits, target, self.options.label_smoothing, self.options.z_loss)[0]

    def remember(self, carry, metrics, params):
        return carry


def build(config: ConfigDict, spec: Spec) -> ScheduledSampling:
    """Raises ConfigError for points, and for an expert in a world that cannot be enumerated."""
    if spec.kind == "points":
        raise ConfigError(f"objective.name='scheduled_sampling' is for sequences; {config.data.name} has points")
    model = plugins.load("models", config.model.name).build(config.model, spec)
    expert = None
    if config.objective.label == "expert":
        world = worlds.of(config, "objective.label='expert'")
        assert isinstance(world, worlds.SequenceWorld)
        laws = worlds.conditionals(world.probabilities())
        table = jnp.asarray(np.concatenate([law.reshape(-1, spec.vocab) for law in laws]), jnp.float32)
        lookup = plugins.load("models", "tabular").build(config.model, spec).apply
        expert = lambda inputs: lookup({"table": table}, inputs)
    return ScheduledSampling(model, spec.end, config.objective, config.model.dropout, expert)
