"""Scheduled sampling: what is fed, in every mode the same; what is never replaced; where it ends."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import theory_scheduled_sampling
from gentrain.options import check as rules
from gentrain import decode, models, plugins, program, schedules, sharding, train, worlds
from gentrain.errors import ConfigError
from gentrain.process import Stop
from tests.helpers import assert_trees_close, ragged_batch
from tests.test_update import LAYOUTS, first_steps

KEY = jax.random.key(11)


def objective(config, spec, **options):
    """The objective, and parameters that are random in every leaf, so that logits are far from uniform."""
    config = config.copy_and_resolve_references()
    config.objective.name = "scheduled_sampling"
    config.objective.update(options)
    built = plugins.load("objectives", "scheduled_sampling").build(config, spec)
    shapes = jax.eval_shape(built.model.init, jax.random.key(0))
    random = np.random.default_rng(3)
    return built, jax.tree.map(lambda x: jnp.asarray(random.normal(0.1, 0.7, x.shape), x.dtype), shapes)


def batch_of(spec, rows=8, seed=0):
    batch = jax.tree.map(jnp.asarray, ragged_batch(spec, rows, seed))
    return batch | ({"context": batch["tokens"][:, :3] % 5} if spec.context_vocab else {})


def total_of(built, batch, key, step):
    """own -> (total, (sums, inputs)): inputs are what the model is fed, caught on the way into it."""

    def total(own):
        caught = []
        apply = lambda params, inputs, *rest: caught.append(inputs) or built.model.apply(params, inputs, *rest)
        spied = dataclasses.replace(built, model=built.model._replace(apply=apply))
        loss, extra = spied.loss("generator", {"generator": own}, {}, batch, key, jnp.asarray(step))
        return loss.total, ({"loss": loss, **extra}, caught[-1] if caught else None)

    return total


def run(built, params, batch, key=KEY, step=0):
    """((total, (sums, inputs)), gradient)."""
    return jax.jit(jax.value_and_grad(total_of(built, batch, key, step), has_aux=True))(params)


def step_of(built, params, batch):
    """((total, sums), gradient)."""
    (total, (sums, _)), gradient = run(built, params, batch)
    return (total, sums), gradient


def inputs_of(built, params, batch, key=KEY):
    """Said to have dropout (these models have none), all modes find the tokens first and then feed them."""
    total = total_of(dataclasses.replace(built, dropout=0.5), batch, key, 0)
    return np.asarray(jax.jit(lambda params: total(params)[1][1])(params))


both = pytest.mark.parametrize("model", ["lstm", "transformer"])


# --- Schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "k", "slope", "formula"),
    [
        ("constant", 1.0, 0.0, lambda i: 0.2),
        ("linear", 0.9, 0.003, lambda i: 0.9 - 0.003 * i),
        ("exponential", 0.99, 0.0, lambda i: 0.99**i),
        ("inverse_sigmoid", 40.0, 0.0, lambda i: 40 / (40 + math.exp(i / 40))),
    ],
)
def test_keep_true_follows_the_formulas_of_the_paper_and_stops_at_its_floor(config, schedule, k, slope, formula):
    config.objective.update({"keep_schedule": schedule, "keep_true": 0.2, "keep_k": k, "keep_slope": slope})
    found = schedules.keep_true(config.objective)
    for step in (0, 1, 50, 148, 400, 1200):
        assert float(found(step)) == pytest.approx(max(0.2, formula(step)), abs=1e-5)
    assert float(found(10**6)) == pytest.approx(0.2)


def test_the_inverse_sigmoid_is_half_way_at_k_log_k(config):
    config.objective.update({"keep_schedule": "inverse_sigmoid", "keep_true": 0.0, "keep_k": 300.0})
    assert float(schedules.keep_true(config.objective)(300 * math.log(300))) == pytest.approx(0.5, abs=1e-4)


# --- What is fed ----------------------------------------------------------------------------------------------------


@both
def test_with_the_truth_alone_it_is_likelihood(config, spec, model):
    config.model.name, config.model.dropout, config.likelihood.label_smoothing = model, 0.2, 0.1
    config.likelihood.z_loss, batch = 0.1, batch_of(spec)
    built, params = objective(config, spec, keep_true=0.5, keep_schedule="exponential", keep_k=1.0)
    likelihood = plugins.load("objectives", "likelihood").build(config, spec)
    (total, sums), gradient = step_of(built, params, batch)
    (other, other_sums), other_gradient = step_of(likelihood, params, batch)
    assert total == pytest.approx(float(other), rel=1e-6) and float(sums["replaced"].total) == 0
    assert float(sums["keep_true"].total) == 1  # 1^step, and not the floor
    assert sums["loss"].weight == other_sums["loss"].weight
    assert_trees_close(gradient, other_gradient, rtol=1e-4, atol=1e-5)


def test_padding_beginnings_and_ends_are_never_replaced(config, spec):
    built, params = objective(config, spec, keep_true=0.0)
    batch = batch_of(spec, rows=64)
    true = np.asarray(feeding.shift_right(batch["tokens"], spec.vocab, spec.end))
    found = inputs_of(built, params, batch)
    begins, padded = true == spec.vocab, ~np.asarray(batch["mask"])
    assert np.array_equal(found == spec.vocab, begins) and begins.sum() > 64  # some rows hold two documents
    behind_padding = np.pad(padded[:, :-1], ((0, 0), (1, 0)))
    assert np.array_equal(found[behind_padding], true[behind_padding])
    assert (found != true).mean() > 0.2  # the rest is the model's
    keep = built.kept(batch["tokens"], batch["mask"], batch["row"], KEY, 0.0)
    assert np.array_equal(keep, padded | (np.asarray(batch["tokens"]) == spec.end))


@pytest.mark.parametrize("coin", ["token", "sequence"])
def test_coins_fall_as_often_as_they_should(config, spec, coin):
    built, _ = objective(config, spec._replace(end=None), coin=coin)
    rows, length = 4000, 12
    tokens, mask = jnp.zeros((rows, length), jnp.int32), jnp.ones((rows, length), bool)
    keep = np.asarray(built.kept(tokens, mask, jnp.arange(rows), KEY, 0.3))
    assert keep[:, -1].all()  # is not fed at all
    keep = keep[:, :-1]
    deviation = math.sqrt(0.21 / (keep.size if coin == "token" else rows))
    assert abs(keep.mean() - 0.3) < 4.5 * deviation
    assert (keep == keep[:, :1]).all() == (coin == "sequence")
    assert abs(np.corrcoef(keep[:-1, 0], keep[1:, 0])[0, 1]) < 0.08  # rows throw their own


def test_coins_and_draws_are_those_of_the_row_wherever_it_is(config, spec):
    built, params = objective(config, spec)
    batch = batch_of(spec)
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    whole = inputs_of(built, params, batch)
    assert np.array_equal(inputs_of(built, params, jax.tree.map(lambda x: x[order], batch)), whole[order])
    assert (inputs_of(built, params, batch, jax.random.fold_in(KEY, 1)) != whole).any()


@pytest.mark.parametrize(
    ("mode", "layout"), [("sequential", "microbatches"), ("sequential", "shard_map"), ("exact", "tensor")]
)
def test_every_layout_feeds_the_same(config, spec, layout, mode):
    config.optimizer.name, config.optimizer.clip_norm = "sgd", 0.0
    config.model.name = "transformer" if mode == "exact" else "lstm"
    config.objective.update({"name": "scheduled_sampling", "mode": mode, "keep_true": 0.3, "window": 4})
    straight, sums = first_steps(config, spec, jax.devices()[:1])
    for section in ("mesh", "training"):
        config[section].update(LAYOUTS[layout].get(section, {}))
    split, split_sums = first_steps(config, spec, jax.devices()[: LAYOUTS[layout].get("devices", 8)])
    assert_trees_close(split.params, straight.params, atol=1e-6)
    assert [float(s["generator/replaced"].total) for s in sums] == [
        float(s["generator/replaced"].total) for s in split_sums
    ]


# --- Modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "draw", "keep_true"),
    [("lstm", "inverse_cdf", 0.0), ("transformer", "inverse_cdf", 0.3), ("transformer", "gumbel", 0.0)],
)
def test_exact_and_enough_passes_are_sequential_token_for_token(config, spec, model, draw, keep_true):
    spec = spec._replace(context_vocab=5, context_shape=(3,))
    config.model.name, batch = model, batch_of(spec)
    found = {}
    modes = (("sequential", 0), ("exact", 0), ("exact", 5), ("passes:11", 0))
    for mode, window in modes if model == "transformer" else (*modes[:2], *modes[3:]):
        built, params = objective(config, spec, mode=mode, window=window, draw=draw, keep_true=keep_true)
        found[mode, window] = run(built, params, batch)
    (total, (_, inputs)), gradient = found.pop(("sequential", 0))
    inputs = inputs_of(objective(config, spec, draw=draw, keep_true=keep_true)[0], params, batch)
    for (mode, _), ((other_total, (sums, other_inputs)), other_gradient) in found.items():
        assert np.array_equal(other_inputs, inputs)
        assert float(other_total) == pytest.approx(float(total), rel=1e-5)
        assert_trees_close(other_gradient, gradient, rtol=1e-3, atol=1e-4)
        assert mode == "passes:11" or float(sums["unresolved"].total) == 0
        assert 1 < float(sums["passes"].total) <= 12


def test_pass_k_settles_k_positions_at_least_and_one_follows_the_truth(config, spec):
    config.model.name, batch = "transformer", batch_of(spec._replace(end=None))
    spec = spec._replace(end=None)
    whole = inputs_of(*objective(config, spec, keep_true=0.2), batch)
    different = []
    for passes in (1, 2, 4):
        found = inputs_of(*objective(config, spec, keep_true=0.2, mode=f"passes:{passes}", window=3), batch)
        assert np.array_equal(found[:, : passes + 1], whole[:, : passes + 1])
        different.append(int((found != whole).sum()))
    assert different[0] > 0
    built, params = objective(config, spec, keep_true=0.2)
    keys = feeding.example_keys(jax.random.fold_in(KEY, 2**32 - 2), batch["row"])
    positions = jnp.broadcast_to(jnp.arange(12)[None, :], (8, 12))
    after_truth = built.model.apply(params, feeding.shift_right(batch["tokens"], spec.vocab, None))
    drawn = np.asarray(decode.make_chooser("inverse_cdf", keys, 12)(after_truth, positions))[:, :-1]
    fed = inputs_of(*objective(config, spec, keep_true=0.2, mode="passes:1", window=3), batch)[:, 1:]
    keep = built.kept(batch["tokens"], batch["mask"], batch["row"], KEY, 0.2)[:, :-1]
    assert np.array_equal(fed, np.where(keep, batch["tokens"][:, :-1], drawn))


def test_an_exact_run_that_gives_up_says_how_much_is_unresolved(config, spec):
    config.model.name = "transformer"
    built, params = objective(config, spec, mode="exact", keep_true=0.0, max_passes=2)
    (_, sums), _ = step_of(built, params, batch_of(spec))
    assert float(sums["passes"].total) == 2 and float(sums["unresolved"].total) > 0


def test_passes_end_at_the_last_token_that_is_not_kept(config, spec):
    built, params = objective(config, spec, mode="exact")
    batch = batch_of(spec)
    begins = feeding.shift_right(batch["tokens"], spec.vocab, spec.end) == spec.vocab
    found = {}
    for last in (0, 4):  # 0: all are kept
        keep = jnp.broadcast_to(jnp.arange(spec.length)[None, :] != last - 1, begins.shape)
        choose = built.chooser(batch["tokens"], keep, feeding.example_keys(KEY, batch["row"]))
        find = lambda params, choose=choose, keep=keep: built.chosen(
            params, choose, batch["tokens"], keep, begins, None
        )[1]
        found[last] = float(jax.jit(find)(params)["passes"].total)
    assert found == {0: 0, 4: 1}


def test_the_likeliest_token_is_fed_on_request(config, spec):
    config.model.name, spec = "transformer", spec._replace(end=None)
    batch = batch_of(spec)
    built, params = objective(config, spec, keep_true=0.0, feed="argmax")
    fed = inputs_of(built, params, batch)
    best = np.argmax(built.model.apply(params, jnp.asarray(fed)), axis=-1)
    inside = np.asarray(batch["mask"])[:, :-1]
    assert np.array_equal(fed[:, 1:][inside], best[:, :-1][inside])


# --- Mixtures -------------------------------------------------------------------------------------------------------


def test_a_sharp_mixture_is_the_token_that_it_is_nearly(config, spec):
    batch = batch_of(spec)
    hard = {"soft_argmax": {"feed": "argmax"}, "gumbel_softmax": {"draw": "gumbel"}}
    for feed, other in hard.items():
        built, params = objective(config, spec, keep_true=0.3, feed=feed, soft_alpha=3000.0)
        (total, _), _ = step_of(built, params, batch)
        (other_total, _), _ = step_of(*objective(config, spec, keep_true=0.3, **other), batch)
        assert float(total) == pytest.approx(float(other_total), rel=1e-3)


@pytest.mark.parametrize("feed", ["soft_argmax", "gumbel_softmax"])
def test_a_pass_mixes_what_follows_the_truth_by_its_formula(config, spec, feed):
    spec = spec._replace(context_vocab=5, context_shape=(3,))
    batch = batch_of(spec)
    built, params = objective(config, spec, keep_true=0.3, feed=feed, soft_alpha=0.5, mode="passes:1")
    true = feeding.shift_right(batch["tokens"], spec.vocab, spec.end)
    keys = feeding.example_keys(jax.random.fold_in(KEY, 2**32 - 2), batch["row"])
    noise = decode.gumbel(keys, jnp.tile(jnp.arange(12), (8, 1)), spec.vocab) if feed == "gumbel_softmax" else 0.0
    powers = np.exp(0.5 * (built.model.apply(params, true, batch["context"]) + noise))
    keep = np.asarray(built.kept(batch["tokens"], batch["mask"], batch["row"], KEY, 0.3))[..., None]
    chosen = np.where(keep, np.eye(spec.vocab)[batch["tokens"]], powers / powers.sum(-1, keepdims=True))
    expected = np.pad(chosen[:, :-1], ((0, 0), (1, 0), (0, 1)))
    expected[np.asarray(true) == spec.vocab] = np.eye(spec.vocab + 1)[spec.vocab]
    np.testing.assert_allclose(inputs_of(built, params, batch), expected, atol=1e-5)


@pytest.mark.parametrize(("model", "feed"), [("lstm", "gumbel_softmax"), ("transformer", "soft_argmax")])
def test_mixtures_in_enough_passes_are_sequential_and_pass_a_gradient_only_on_request(config, spec, model, feed):
    config.model.name, batch = model, batch_of(spec)
    gradients = {}
    for through in (False, True):
        options = {"feed": feed, "keep_true": 0.3, "feed_gradient": through}
        sequential = step_of(*objective(config, spec, **options), batch)
        passes = step_of(*objective(config, spec, **options, mode="passes:11"), batch)
        assert float(passes[0][0]) == pytest.approx(float(sequential[0][0]), rel=1e-4)
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(sequential[1]))
        assert_trees_close(passes[1], sequential[1], rtol=1e-3, atol=1e-4 * scale)
        gradients[through] = sequential[0][0], sequential[1]
    assert float(gradients[True][0]) == pytest.approx(float(gradients[False][0]), rel=1e-5)
    difference = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), gradients[True][1], gradients[False][1])
    assert max(jax.tree.leaves(difference)) > 1e-2


def test_the_gradient_through_a_mixture_is_the_slope_of_the_loss(config, spec):
    config.model.name, batch = "lstm", batch_of(spec)
    options = {"feed": "soft_argmax", "keep_true": 0.3, "mode": "passes:2"}
    built, params = objective(config, spec, **options, feed_gradient=True)
    loss = lambda own: float(step_of(built, own, batch)[0][0])
    direction = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(0).normal(size=x.shape), x.dtype), params)
    slope = lambda built: sum(
        float(jnp.vdot(g, d))
        for g, d in zip(*map(jax.tree.leaves, (step_of(built, params, batch)[1], direction)), strict=True)
    )
    size = 1e-3
    moved = [jax.tree.map(lambda p, d, s=sign: p + s * size * d, params, direction) for sign in (1, -1)]
    measured = (loss(moved[0]) - loss(moved[1])) / (2 * size)
    assert slope(built) == pytest.approx(measured, rel=2e-2)
    cut = objective(config, spec, **options)[0]
    assert abs(slope(cut) - measured) > 3 * abs(slope(built) - measured)


# --- Where it ends --------------------------------------------------------------------------------------------------


ENDS = {
    "coin per token": ({"scheduled_sampling.coin": "token"}, {}),
    "coin per sequence": ({"scheduled_sampling.coin": "sequence"}, {"coin": "sequence"}),
    "one parallel pass": ({"scheduled_sampling.mode": "passes:1"}, {"coin": "parallel"}),
    "exact, annealed": (
        {"scheduled_sampling.mode": "exact", "scheduled_sampling.keep_schedule": "exponential", "scheduled_sampling.keep_k": 0.98},
        {},
    ),
    "expert": ({"scheduled_sampling.label": "expert"}, {"label": "expert"}),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_run_ends_at_the_fixed_point(tmp_path, monkeypatch, case):
    monkeypatch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    changes, arguments = ENDS[case]
    config = theory_scheduled_sampling.get_config()
    config.sweep, config.model.name, config.steps = (), "tabular", 400
    config.evaluate.every_steps = config.log.every_steps = config.steps
    config.data.world.held_out, config.optimizer.learning_rate = 256, 0.1
    # A world in which these ends are 0.04 apart and more; in most they are nearer than any tolerance.
    config.data.world.vocab, config.data.world.length, config.data.world.concentration, config.data.world.seed = 2, 4, 0.1, 124
    config.update_from_flattened_dict({"scheduled_sampling.keep_true": 0.3, **changes})
    rules.validate(config)
    train.train(config, tmp_path, Stop())
    final = json.loads((tmp_path / "report.json").read_text())["final"]
    assert final["exact/fixed_point_error"] < 0.015
    p = worlds.of(config, "a test").probabilities()
    expected = worlds.scheduled_sampling_fixed_point(p, 0.3, **arguments)
    assert final["exact/max_error"] == pytest.approx(np.abs(expected - p).max(), abs=0.015)
    assert (final["exact/max_error"] < 0.015) == (case == "expert")


def test_never_fed_the_truth_a_network_learns_the_product_of_marginals(tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    config = theory_scheduled_sampling.get_config()
    config.sweep, config.steps, config.scheduled_sampling.keep_true, config.model.width = (), 300, 0.0, 16
    config.evaluate.every_steps = config.log.every_steps = config.steps
    config.data.world.held_out, config.data.world.length = 256, 3
    train.train(config, tmp_path, Stop())
    final = json.loads((tmp_path / "report.json").read_text())["final"]
    assert final["exact/total_correlation"] < 1e-2 and final["exact/max_marginal_error"] < 0.02
    assert final["exact/fixed_point_error"] < 0.02 < final["exact/max_error"]


# --- Mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep_true": 1.2}, "keep_true=1.2"),
        ({"keep_schedule": "linear", "keep_k": 1.5}, "keep_k=1.5.*at most 1"),
        ({"keep_schedule": "exponential", "keep_k": 1.01}, "keep_k=1.01.*at most 1"),
        ({"keep_schedule": "inverse_sigmoid", "keep_k": 0.5}, "keep_k=0.5.*1 or more"),
        ({"keep_schedule": "cosine"}, "inverse_sigmoid"),
        ({"mode": "passes:0"}, "passes:K"),
        ({"mode": "passes:"}, "passes:K"),
        ({"mode": "parallel"}, "passes:K"),
        ({"label": "expert"}, "no expert"),
        ({"feed": "soft_argmax", "mode": "exact"}, "no fixed point"),
        ({"feed_gradient": True}, "soft_argmax"),
        ({"coin": "row"}, "token, sequence"),
    ],
)
def test_options_that_cannot_be_are_named(config, changes, words):
    config.objective.name = "scheduled_sampling"
    config.objective.update(changes)
    with pytest.raises(ConfigError, match=words):
        rules.validate(config)


def test_what_needs_another_model_or_world_is_named(config):
    config.objective.update({"name": "scheduled_sampling", "feed": "soft_argmax"})
    config.data.name, config.model.name = "world:table", "tabular"
    with pytest.raises(ConfigError, match="lstm or transformer"):
        rules.validate(config)
    config.objective.update({"feed": "sample", "label": "expert", "label_smoothing": 0.1})
    with pytest.raises(ConfigError, match="label_smoothing"):
        rules.validate(config)
    config.objective.update({"label_smoothing": 0.0, "z_loss": 0.1})
    with pytest.raises(ConfigError, match="z_loss"):
        rules.validate(config)
    config.model.name = "lstm"
    config.objective.update({"z_loss": 0.0, "feed": "soft_argmax"})
    with pytest.raises(ConfigError, match="soft feeding"):
        rules.validate(config)
    config.scheduled_sampling.feed = "sample"
    config.likelihood.label_smoothing, config.data.name = 0.0, "world:ring"
    config.model.name = "gaussian"
    rules.validate(config)
    with pytest.raises(ConfigError, match="points"):
        program.build(config, worlds_spec(config), None)


def worlds_spec(config):
    from gentrain import data

    return data.build(config, None).spec
