"""Scheduled sampling: training on what the model itself would have said before (Bengio et al., 2015)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from gentrain import decode, schedules, worlds
from gentrain.datasets.spec import Spec
from gentrain.errors import ConfigError
from gentrain.losses import cross_entropy, masked_sum, score, smoothed_nll
from gentrain.models import tabular
from gentrain.models.base import SequenceModel, at_positions, before_logits, known_logits
from gentrain.models.feeding import example_keys, inputs_after
from gentrain.objectives.base import Objective, Optimum, generator_of
from gentrain.objectives.scheduled_sampling_options import MIXTURES, TOKENS, Options
from gentrain.sums import Metric, Sum

METRICS = {
    "generator/keep_true": Metric("probability", None, "of feeding the true token"),
    "generator/replaced": Metric("share", None, "tokens of which another one was fed"),
    "generator/passes": Metric("passes", None, "of the model over a window, to find what is fed"),
    "generator/unresolved": Metric("tokens", None, "a row, that were fed as they stood after the last pass"),
}
COINS, NOISE = 2**32 - 1, 2**32 - 2  # their keys are apart from those of dropout, which are of rows
Tokens = Int[Array, "batch length"]
Mask = Bool[Array, "batch length"]
Inputs = Tokens | Float[Array, "batch length symbols"]  # or weights that mix tokens, BOS last


@dataclass(frozen=True)
class ScheduledSampling(Objective):
    """loss = -sum_t log Q(x_t | f_<t), nats a token, where f_i is the true x_i with probability keep_true, else the
    model's own z_i ~ Q(. | f_<i).

    The target stays that of the true prefix, so what it converges to is not the data but (without a gradient through
    z) Q(x_t | f) = E[P(x_t | x_<t) | f]: at keep_true = 0 the product of the position marginals (Huszár, 2015). With
    label 'expert' the target is the world's conditional after f itself, as in DAgger, and Q = P again.

    Never replaced are padding, the beginning of a sequence and its end. Fed tokens are drawn without dropout. The
    coins and draws of an example are functions of (seed, step, row). Modes 'sequential' and 'exact' feed the same
    tokens. 'passes:K' (Duckworth et al., 2019) draws all tokens K times in parallel, first after the true prefix; at
    K = 1 that is what it stays, so for three tokens and more it is another objective, with a bias of its own.
    """

    model: SequenceModel
    options: Options
    steps: int
    dropout: float
    expert: Callable[[Tokens], Float[Array, "batch length vocab"]] | None  # inputs -> P(. | inputs up to each)

    def loss(self, player, params, carry, batch, key, step):
        tokens, mask, context = batch["tokens"], batch["mask"], batch.get("context")
        starts = self.model.inputs(tokens) == self.model.vocab
        keep_true = schedules.keep_true(self.options)(step)
        keep = self.draw_coins(tokens, mask, batch["row"], key, keep_true)
        choose = self.make_chooser(tokens, keep, example_keys(jax.random.fold_in(key, NOISE), batch["row"]))
        recursion = decode.Recursion(self.model, params[player], choose, starts, context)
        one = jnp.ones(())
        metrics = {"keep_true": Sum(keep_true * one, one), "replaced": masked_sum((~keep).astype(jnp.float32), mask)}
        if self.options.mode == "sequential" and not self.dropout and not self.model.chunk:
            # What is fed was drawn from the very logits that are learned.
            logits, fed = decode.sequential(self.for_search(recursion), return_logits=True)
            inputs = inputs_after(fed, starts, self.model.vocab)
            x = before_logits(self.model, params[player], inputs, context)
            logits = known_logits(self.model, params[player], x, jax.lax.stop_gradient(logits))
            return masked_sum(self.position_loss(logits, self.target(tokens, inputs)), mask), metrics
        fed, search_metrics = self.find_fed(recursion, tokens, keep)
        inputs = inputs_after(fed, starts, self.model.vocab)
        loss = at_positions(
            self.model,
            params[player],
            self.position_loss,
            inputs,
            self.target(tokens, inputs),
            context=context,
            keys=example_keys(key, batch["row"]),
        )
        return masked_sum(loss, mask), metrics | search_metrics

    def draw_coins(
        self, tokens: Tokens, mask: Mask, row: Int[Array, "batch"], key: Array, keep_true: Float[Array, ""]
    ) -> Mask:
        """The positions whose true token is fed."""
        count = tokens.shape[1] if self.options.coin == "token" else 1
        keys = example_keys(jax.random.fold_in(key, COINS), row)
        coins = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys) < keep_true
        never_fed = jnp.arange(tokens.shape[1])[None, :] == tokens.shape[1] - 1
        end = self.model.end
        return coins | ~mask | never_fed | (False if end is None else tokens == end)

    def make_chooser(self, tokens: Tokens, keep: Mask, keys: Array) -> decode.Choose:
        """choose(logits, positions): the true tokens where they are kept, else the model's, or a mixture of them."""
        options = self.options

        def at(values, positions):
            return jnp.take_along_axis(values, positions, axis=1)

        draw = decode.make_chooser(options.draw if options.feed == "sample" else "argmax", keys, tokens.shape[1])

        def choose_token(logits, positions):
            model_tokens = draw(jax.lax.stop_gradient(logits), positions)
            return jnp.where(at(keep, positions), at(tokens, positions), model_tokens)

        def mix_tokens(logits, positions):
            noise = decode.gumbel(keys, positions, logits.shape[-1]) if options.feed == "gumbel_softmax" else 0.0
            weights = jax.nn.softmax(options.soft_alpha * (logits + noise), axis=-1)
            true = jax.nn.one_hot(at(tokens, positions), self.model.vocab)
            weights = jnp.where(at(keep, positions)[..., None], true, weights)
            weights = weights if options.feed_gradient else jax.lax.stop_gradient(weights)
            return jnp.pad(weights, ((0, 0), (0, 0), (0, 1)))  # no weight on BOS

        return choose_token if options.feed in TOKENS else mix_tokens

    def for_search(self, recursion: decode.Recursion) -> decode.Recursion:
        """The recursion, through which a gradient goes only where the options say so."""
        if self.options.feed_gradient:
            return recursion
        return recursion._replace(params=jax.lax.stop_gradient(recursion.params))

    def find_fed(self, recursion: decode.Recursion, tokens: Tokens, keep: Mask) -> tuple[Inputs, dict[str, Sum]]:
        """What is fed after each position, and metrics of the search for it."""
        options, recursion = self.options, self.for_search(recursion)
        if options.mode == "sequential":
            return decode.sequential(recursion), {}
        rounds = int(options.mode.partition(":")[2] or 0)
        if options.feed in MIXTURES:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None, :], tokens.shape)

            def mix_again(mixtures, _):
                model, params, choose, starts, context = recursion
                inputs = inputs_after(mixtures, starts, model.vocab)
                return choose(model.apply(params, inputs, context), positions), None

            true = jax.nn.one_hot(tokens, self.model.vocab + 1)
            return jax.lax.scan(mix_again, true, length=rounds)[0], {}
        # The tokens must be certain up to the last one that is not kept.
        needed = jnp.max(jnp.where(keep, 0, jnp.arange(1, tokens.shape[1] + 1)[None, :]), axis=1)
        point = decode.fixed_point(
            recursion,
            tokens,
            finished=lambda _, resolved: resolved >= needed,
            window=0 if rounds else options.window,
            max_passes=rounds or options.max_passes,
        )
        unresolved = jnp.maximum(needed - point.resolved, 0).astype(jnp.float32)
        one = jnp.ones(())
        metrics = {"passes": Sum(point.passes * one, one), "unresolved": Sum(unresolved.sum(), needed.size * one)}
        return point.tokens, metrics

    def target(self, tokens: Tokens, inputs: Inputs) -> Tokens | Float[Array, "batch length vocab"]:
        """What is learned after what was fed: the data's tokens, or the expert's conditionals."""
        return tokens if self.expert is None else self.expert(inputs)

    def position_loss(self, logits: Float[Array, "batch n vocab"], target: Array) -> Float[Array, "batch n"]:
        """The loss of each position, nats; target: (batch, n) int, or (batch, n, vocab) of an expert."""
        if self.expert is not None:
            return cross_entropy(target, logits)
        return smoothed_nll(score(logits, target), self.options.label_smoothing, self.options.z_loss)

    def optimum(self, world: worlds.World) -> Optimum | None:
        """The fixed point at the keep_true of the last step, where it is known in closed form.

        None in worlds of too many prefixes for its recursion.
        """
        options, single_pass = self.options, self.options.mode == "passes:1"
        closed_form = options.mode in ("sequential", "exact") or (single_pass and options.coin == "token")
        if not closed_form or options.feed != "sample" or not isinstance(world, worlds.SequenceWorld):
            return None
        coin = "parallel" if single_pass else options.coin
        keep_true = float(schedules.keep_true(options)(self.steps))
        try:
            table = worlds.scheduled_sampling_fixed_point(world, keep_true, coin, options.label)
        except ConfigError:
            return None
        return Optimum("fixed_point", table)


def build(config: ConfigDict, spec: Spec) -> ScheduledSampling:
    """Raises ConfigError for an expert in a world that cannot be enumerated."""
    options = Options.read(config.objective, config.scheduled_sampling)
    model = generator_of(config, spec)
    expert = world_expert(config, spec) if options.label == "expert" else None
    return ScheduledSampling(model, options, config.steps, config.model.dropout, expert)


def world_expert(config: ConfigDict, spec: Spec) -> Callable[[Tokens], Float[Array, "batch length vocab"]]:
    """inputs -> the world's conditionals P(. | inputs up to each)."""
    world = worlds.of(config, "scheduled_sampling.label='expert'")
    assert isinstance(world, worlds.SequenceWorld)
    conditionals = worlds.conditionals(world.probabilities())
    table = np.concatenate([conditional.reshape(-1, spec.vocab) for conditional in conditionals])
    return partial(tabular.build(config.model, spec).apply, {"table": jnp.asarray(table, jnp.float32)})
