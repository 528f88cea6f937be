"""Scheduled sampling: what is fed, in every mode the same; what is never replaced; where it ends."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, theory_scheduled_sampling
from gentrain import decode, plugins, program, schedules, sharding, worlds
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.models.feeding import example_keys, shift_right
from gentrain.objectives.scheduled_sampling import NOISE
from gentrain.options.check import validate
from tests.helpers import assert_trees_close, ragged_batch
from tests.objectives.helpers import final_metrics

KEY = jax.random.key(11)
VOCAB, LENGTH, ROWS = 7, 12, 8
SPECS = {
    "documents": TextSpec(VOCAB, LENGTH, end=6),
    "rows": TextSpec(VOCAB, LENGTH),  # without an end
    "contexts": TextSpec(VOCAB, LENGTH, end=6, context_vocab=5, context_shape=(3,)),
}


@functools.cache
def build(model="lstm", data="documents", **options):
    config = base.get_config()
    config.model.name, config.model.width, config.model.transformer.kv_heads = model, 16, 2
    config.model.dropout = options.pop("dropout", 0.0)
    config.objective.name = "scheduled_sampling"
    config.scheduled_sampling.update(options)
    return plugins.load("objectives", "scheduled_sampling").build(config, SPECS[data])


@functools.cache
def random_params(model="lstm", data="documents"):
    """Random in every leaf, so that logits are far from uniform."""
    shapes = jax.eval_shape(build(model, data).model.init, jax.random.key(0))
    random = np.random.default_rng(3)
    return jax.tree.map(lambda x: jnp.asarray(random.normal(0.1, 0.7, x.shape), x.dtype), shapes)


@functools.cache
def batch_of(data="documents", rows=ROWS):
    batch = jax.tree.map(jnp.asarray, ragged_batch(SPECS[data], rows, 0))
    return batch | ({"context": batch["tokens"][:, :3] % 5} if SPECS[data].context_vocab else {})


def loss_of(objective):
    """(params, batch, key) -> (total, (metrics, inputs)); inputs: what the model is fed, caught on the way into it."""

    def total(params, batch, key):
        caught = []

        def apply(params, inputs, *rest):
            caught.append(inputs)
            return objective.model.apply(params, inputs, *rest)

        spied = dataclasses.replace(objective, model=objective.model._replace(apply=apply))
        loss, metrics = spied.loss("generator", {"generator": params}, {}, batch, key, jnp.asarray(0))
        return loss.total, ({"loss": loss, **metrics}, caught[-1] if caught else None)

    return total


# The compiled programs of an objective, shared by all tests.
value = functools.cache(lambda objective: jax.jit(loss_of(objective)))
value_and_gradient = functools.cache(lambda objective: jax.jit(jax.value_and_grad(loss_of(objective), has_aux=True)))


@functools.cache
def inputs_program(objective):
    """Said to have dropout (these models have none), all modes find the tokens first and then feed them."""
    total = loss_of(dataclasses.replace(objective, dropout=0.5))
    return jax.jit(lambda params, batch, key: total(params, batch, key)[1][1])


def inputs_of(batch, key=KEY, model="lstm", data="documents", **options):
    compiled = inputs_program(build(model, data, **options))
    return np.asarray(compiled(random_params(model, data), batch, key))


def coins(batch, keep_true, objective, key=KEY):
    return np.asarray(objective.draw_coins(batch["tokens"], batch["mask"], batch["row"], key, keep_true))


def noise_keys(batch):
    """The keys of what the model draws."""
    return example_keys(jax.random.fold_in(KEY, NOISE), batch["row"])


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
def test_keep_true_follows_the_formulas_of_the_paper_and_stops_at_its_floor(schedule, k, slope, formula):
    options = build(keep_schedule=schedule, keep_true=0.2, keep_k=k, keep_slope=slope).options
    keep_true = schedules.keep_true(options)
    for step in (0, 1, 50, 148, 400, 1200):
        assert float(keep_true(step)) == pytest.approx(max(0.2, formula(step)), abs=1e-5)
    assert float(keep_true(10**6)) == pytest.approx(0.2)


def test_the_inverse_sigmoid_is_half_way_at_k_log_k():
    options = build(keep_schedule="inverse_sigmoid", keep_true=0.0, keep_k=300.0).options
    assert float(schedules.keep_true(options)(300 * math.log(300))) == pytest.approx(0.5, abs=1e-4)


# --- What is fed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["lstm", "transformer"])
def test_with_the_truth_alone_it_is_likelihood(config, model):
    loss_options = {"label_smoothing": 0.1, "z_loss": 0.1}
    objective = build(model, keep_true=0.5, keep_schedule="exponential", keep_k=1.0, dropout=0.2, **loss_options)
    config.model.name, config.model.dropout = model, 0.2
    config.likelihood.update(loss_options)
    likelihood = plugins.load("objectives", "likelihood").build(config, SPECS["documents"])
    arguments = random_params(model), batch_of(), KEY
    (total, (metrics, inputs)), gradient = value_and_gradient(objective)(*arguments)
    (expected, (other_metrics, other_inputs)), expected_gradient = value_and_gradient(likelihood)(*arguments)
    assert float(total) == pytest.approx(float(expected), rel=1e-6) and float(metrics["replaced"].total) == 0
    assert np.array_equal(inputs, other_inputs)
    assert float(metrics["keep_true"].total) == 1  # 1^step, and not the floor
    assert metrics["loss"].weight == other_metrics["loss"].weight
    assert_trees_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def test_padding_beginnings_and_ends_are_never_replaced():
    spec, batch = SPECS["documents"], batch_of(rows=64)
    true = np.asarray(shift_right(batch["tokens"], VOCAB, spec.end))
    inputs = inputs_of(batch, keep_true=0.0)
    begins, padded = true == VOCAB, ~np.asarray(batch["mask"])
    assert np.array_equal(inputs == VOCAB, begins) and begins.sum() > 64  # some rows hold two documents
    behind_padding = np.pad(padded[:, :-1], ((0, 0), (1, 0)))
    assert np.array_equal(inputs[behind_padding], true[behind_padding])
    assert (inputs != true).mean() > 0.2  # the rest is the model's
    keep = coins(batch, 0.0, build(keep_true=0.0))
    assert np.array_equal(keep[:, :-1], (padded | (np.asarray(batch["tokens"]) == spec.end))[:, :-1])
    assert keep[:, -1].all()  # is not fed at all


@pytest.mark.parametrize("coin", ["token", "sequence"])
def test_coins_fall_as_often_as_they_should(coin):
    rows = 4000
    tokens = jnp.zeros((rows, LENGTH), jnp.int32)
    batch = {"tokens": tokens, "mask": jnp.ones(tokens.shape, bool), "row": jnp.arange(rows)}
    keep = coins(batch, 0.3, build(data="rows", coin=coin))
    assert keep[:, -1].all()  # is not fed at all
    keep = keep[:, :-1]
    deviation = math.sqrt(0.21 / (keep.size if coin == "token" else rows))
    assert abs(keep.mean() - 0.3) < 4.5 * deviation
    assert (keep == keep[:, :1]).all() == (coin == "sequence")
    assert abs(np.corrcoef(keep[:-1, 0], keep[1:, 0])[0, 1]) < 0.08  # rows throw their own


def test_coins_and_draws_are_those_of_the_row_wherever_it_is():
    batch, order = batch_of(), np.array([5, 2, 7, 0, 1, 6, 3, 4])
    whole = inputs_of(batch, keep_true=0.5)
    assert np.array_equal(inputs_of(jax.tree.map(lambda x: x[order], batch), keep_true=0.5), whole[order])
    assert (inputs_of(batch, jax.random.fold_in(KEY, 1), keep_true=0.5) != whole).any()


LAYOUTS = {  # mode, devices, and the sections of the config that it changes
    "microbatches": ("sequential", 4, {"training": {"microbatches": 4}, "mesh": {"data": 4}}),
    "shard_map": ("sequential", 8, {"training": {"mode": "shard_map"}, "mesh": {"data": 8}}),
    "tensor": ("exact", 8, {"mesh": {"data": 2, "fsdp": 2, "tensor": 2, "rules": ((r"kernel$", (None, "tensor")),)}}),
}


@functools.cache
def first_steps(mode, devices=1, layout=None):
    """(parameters, numbers of replaced tokens) after three updates, on the host."""
    config, spec = base.get_config(), SPECS["documents"]
    config.model.name = "transformer" if mode == "exact" else "lstm"
    config.model.width, config.model.transformer.kv_heads = 16, 2
    config.data.batch_size, config.optimizer.name, config.optimizer.clip_norm = 16, "sgd", 0.0
    config.optimizer.learning_rate = 1e-2
    config.objective.name = "scheduled_sampling"
    config.scheduled_sampling.update({"mode": mode, "keep_true": 0.3, "window": 4})
    for section, changes in (LAYOUTS[layout][2] if layout else {}).items():
        config[section].update(changes)
    mesh = sharding.make_mesh(config.mesh, 16, config.training.microbatches, jax.devices()[:devices])
    built = program.build(config, spec, mesh)
    state, replaced = built.init(), []
    for step in range(3):
        state, metrics = built.update(state, sharding.put(ragged_batch(spec, 16, step), mesh, 16))
        replaced.append(float(metrics["generator/replaced"].total))
    return jax.device_get(state.params), replaced


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_feeds_the_same(no_mesh, layout):
    mode, devices, _ = LAYOUTS[layout]
    params, replaced = first_steps(mode)
    split_params, split_replaced = first_steps(mode, devices, layout)
    assert_trees_close(split_params, params, atol=1e-6)
    assert split_replaced == replaced and min(replaced) > 0


# --- Modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "draw", "keep_true"),
    [("lstm", "inverse_cdf", 0.0), ("transformer", "inverse_cdf", 0.3), ("transformer", "gumbel", 0.0)],
)
def test_exact_and_enough_passes_are_sequential_token_for_token(model, draw, keep_true):
    options = {"data": "contexts", "draw": draw, "keep_true": keep_true}
    arguments = random_params(model, "contexts"), batch_of("contexts"), KEY
    total, _ = value(build(model, **options))(*arguments)
    inputs = inputs_of(batch_of("contexts"), model=model, **options)
    modes = [{"mode": "exact"}, {"mode": "passes:11"}]
    modes += [{"mode": "exact", "window": 5}] if model == "transformer" else []
    for mode in modes:
        other_total, (metrics, other_inputs) = value(build(model, **options, **mode))(*arguments)
        assert np.array_equal(other_inputs, inputs)
        assert float(other_total) == pytest.approx(float(total), rel=1e-5)
        assert mode["mode"] == "passes:11" or float(metrics["unresolved"].total) == 0
        assert 1 < float(metrics["passes"].total) <= 12


def test_the_gradient_of_a_single_scan_is_that_of_finding_tokens_first_and_feeding_them_then():
    """An LSTM finds and feeds in one scan of its step, whatever else in two passes."""
    options, arguments = (
        {"data": "contexts", "keep_true": 0.0},
        (random_params("lstm", "contexts"), batch_of("contexts"), KEY),
    )
    _, gradient = value_and_gradient(build(**options))(*arguments)
    _, other_gradient = value_and_gradient(build(**options, mode="exact"))(*arguments)
    assert_trees_close(other_gradient, gradient, rtol=1e-3, atol=1e-4)


def test_pass_k_settles_k_positions_at_least():
    options, batch = {"data": "rows", "keep_true": 0.2}, batch_of("rows")
    whole, different = inputs_of(batch, **options), []
    for passes in (1, 2, 4):
        inputs = inputs_of(batch, **options, mode=f"passes:{passes}")
        assert np.array_equal(inputs[:, : passes + 1], whole[:, : passes + 1])
        different.append(int((inputs != whole).sum()))
    assert different[0] > 0


def test_one_pass_follows_the_truth():
    model, batch = "transformer", batch_of("rows")
    positions = jnp.broadcast_to(jnp.arange(LENGTH)[None, :], (ROWS, LENGTH))
    apply = jax.jit(build(model, "rows").model.apply)
    after_truth = apply(random_params(model, "rows"), shift_right(batch["tokens"], VOCAB, None))
    sampled = np.asarray(decode.make_chooser("inverse_cdf", noise_keys(batch), LENGTH)(after_truth, positions))[:, :-1]
    options = {"data": "rows", "keep_true": 0.2, "mode": "passes:1", "window": 3}  # windows are for mode 'exact'
    keep = coins(batch, 0.2, build(model, **options))[:, :-1]
    fed = inputs_of(batch, model=model, **options)[:, 1:]
    assert np.array_equal(fed, np.where(keep, batch["tokens"][:, :-1], sampled))


def test_an_exact_run_that_gives_up_says_how_much_is_unresolved():
    objective = build("transformer", mode="exact", keep_true=0.0, max_passes=2)
    _, (metrics, _) = value(objective)(random_params("transformer"), batch_of(), KEY)
    assert float(metrics["passes"].total) == 2 and float(metrics["unresolved"].total) > 0


def test_passes_end_at_the_last_token_that_is_not_kept():
    objective, batch = build(mode="exact"), batch_of()
    starts = shift_right(batch["tokens"], VOCAB, 6) == VOCAB

    @jax.jit
    def passes(params, keep):
        choose = objective.make_chooser(batch["tokens"], keep, example_keys(KEY, batch["row"]))
        recursion = decode.Recursion(objective.model, params, choose, starts)
        return objective.find_fed(recursion, batch["tokens"], keep)[1]["passes"].total

    for last, expected in ((0, 0), (4, 1)):  # 0: all are kept
        keep = jnp.broadcast_to(jnp.arange(LENGTH)[None, :] != last - 1, starts.shape)
        assert float(passes(random_params(), keep)) == expected


def test_the_likeliest_token_is_fed_on_request():
    options, batch = {"model": "transformer", "data": "rows"}, batch_of("rows")
    fed = inputs_of(batch, **options, keep_true=0.0, feed="argmax")
    apply = jax.jit(build(**options).model.apply)
    best = np.argmax(apply(random_params(**options), jnp.asarray(fed)), axis=-1)
    inside = np.asarray(batch["mask"])[:, :-1]
    assert np.array_equal(fed[:, 1:][inside], best[:, :-1][inside])


# --- Mixtures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feed", "token"), [("soft_argmax", {"feed": "argmax"}), ("gumbel_softmax", {"draw": "gumbel"})]
)
def test_a_sharp_mixture_is_the_token_that_it_is_nearly(feed, token):
    arguments = random_params(), batch_of(), KEY
    total, _ = value(build(keep_true=0.3, feed=feed, soft_alpha=3000.0))(*arguments)
    expected, _ = value(build(keep_true=0.3, **token))(*arguments)
    assert float(total) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("feed", ["soft_argmax", "gumbel_softmax"])
def test_a_pass_mixes_what_follows_the_truth_by_its_formula(feed):
    batch, options = batch_of("contexts"), {"data": "contexts", "keep_true": 0.3, "feed": feed, "soft_alpha": 0.5}
    objective = build(**options)
    true = shift_right(batch["tokens"], VOCAB, 6)
    positions = jnp.tile(jnp.arange(LENGTH), (ROWS, 1))
    noise = decode.gumbel(noise_keys(batch), positions, VOCAB) if feed == "gumbel_softmax" else 0.0
    powers = np.exp(
        0.5 * (jax.jit(objective.model.apply)(random_params(data="contexts"), true, batch["context"]) + noise)
    )
    keep = coins(batch, 0.3, objective)[..., None]
    chosen = np.where(keep, np.eye(VOCAB)[batch["tokens"]], powers / powers.sum(-1, keepdims=True))
    expected = np.pad(chosen[:, :-1], ((0, 0), (1, 0), (0, 1)))
    expected[np.asarray(true) == VOCAB] = np.eye(VOCAB + 1)[VOCAB]
    np.testing.assert_allclose(inputs_of(batch, **options, mode="passes:1"), expected, atol=1e-5)


MIXTURES = [("lstm", "gumbel_softmax"), ("transformer", "soft_argmax")]


@pytest.mark.parametrize(("model", "feed"), MIXTURES)
def test_mixtures_in_enough_passes_are_sequential(model, feed):
    arguments = random_params(model), batch_of(), KEY
    totals = {}
    for mode in ("sequential", "passes:11"):
        objective = build(model, feed=feed, keep_true=0.3, mode=mode)
        totals[mode] = float(value(objective)(*arguments)[0])
    assert totals["passes:11"] == pytest.approx(totals["sequential"], rel=1e-4)


@pytest.mark.parametrize(("model", "feed"), [MIXTURES[0], pytest.param(*MIXTURES[1], marks=pytest.mark.slow)])
def test_mixtures_pass_the_same_gradient_in_every_mode_and_only_on_request(model, feed):
    arguments, results = (random_params(model), batch_of(), KEY), {}
    for through in (False, True):
        options = {"feed": feed, "keep_true": 0.3, "feed_gradient": through}
        (total, _), gradient = value_and_gradient(build(model, **options))(*arguments)
        _, passes_gradient = value_and_gradient(build(model, **options, mode="passes:11"))(*arguments)
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
        assert_trees_close(passes_gradient, gradient, rtol=1e-3, atol=1e-4 * scale)
        results[through] = float(total), gradient
    assert results[True][0] == pytest.approx(results[False][0], rel=1e-5)
    difference = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), results[True][1], results[False][1])
    assert max(jax.tree.leaves(difference)) > 1e-2


def test_the_gradient_through_a_mixture_is_the_slope_of_the_loss():
    options = {"feed": "soft_argmax", "keep_true": 0.3, "mode": "passes:2"}
    objective, params, size = build(**options, feed_gradient=True), random_params(), 1e-3
    random = np.random.default_rng(0)
    direction = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), params)

    def slope(objective):
        _, gradient = value_and_gradient(objective)(params, batch_of(), KEY)
        return float(sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)))

    def moved(distance):
        nearby = jax.tree.map(lambda p, d: p + distance * d, params, direction)
        return float(value(objective)(nearby, batch_of(), KEY)[0])

    measured = (moved(size) - moved(-size)) / (2 * size)
    assert slope(objective) == pytest.approx(measured, rel=2e-2)
    assert abs(slope(build(**options)) - measured) > 3 * abs(slope(objective) - measured)


# --- Where it ends --------------------------------------------------------------------------------------------------


ENDS = {
    "coin per token": ({"coin": "token"}, {}),
    "coin per sequence": ({"coin": "sequence"}, {"coin": "sequence"}),
    "one parallel pass": ({"mode": "passes:1"}, {"coin": "parallel"}),
    "exact, annealed": ({"mode": "exact", "keep_schedule": "exponential", "keep_k": 0.98}, {}),
    "expert": ({"label": "expert"}, {"label": "expert"}),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_run_ends_at_the_fixed_point(tmp_path, run_on_one_device, case):
    options, arguments = ENDS[case]
    config = theory_scheduled_sampling.get_config()
    config.sweep, config.report.figures, config.model.name, config.steps = (), (), "tabular", 250
    config.evaluate.every_steps = config.log.every_steps = config.steps
    config.data.batch_size, config.data.world.held_out, config.optimizer.learning_rate = 512, 256, 0.1
    # A world in which these ends are 0.04 apart and more; in most they are nearer than any tolerance.
    config.data.world.update({"vocab": 2, "length": 4, "concentration": 0.1, "seed": 124})
    config.model.width = base.get_config().model.width
    config.scheduled_sampling.update({"keep_true": 0.3, **options})
    validate(config)
    final = final_metrics(config, tmp_path)
    assert final["exact/fixed_point_error"] < 0.015
    p = worlds.of(config, "a test").probabilities()
    expected = worlds.scheduled_sampling_fixed_point(p, 0.3, **arguments)
    assert final["exact/max_error"] == pytest.approx(np.abs(expected - p).max(), abs=0.015)
    assert (final["exact/max_error"] < 0.015) == (case == "expert")


def test_never_fed_the_truth_a_network_learns_the_product_of_marginals(tmp_path, run_on_one_device):
    config = theory_scheduled_sampling.get_config()
    config.sweep, config.report.figures, config.steps, config.model.width = (), (), 200, 16
    config.scheduled_sampling.keep_true = 0.0
    config.evaluate.every_steps = config.log.every_steps = config.steps
    config.data.batch_size, config.data.world.held_out, config.data.world.length = 512, 256, 3
    final = final_metrics(config, tmp_path)
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
        ({"feed_gradient": True}, "feed_gradient=True is set, .*soft_argmax"),
        ({"soft_alpha": 2.0}, "soft_alpha=2.0 is set, .*soft_argmax"),
        ({"coin": "row"}, "token, sequence"),
    ],
)
def test_options_that_cannot_be_are_named(changes, words):
    config = base.get_config()
    config.objective.name = "scheduled_sampling"
    config.scheduled_sampling.update(changes)
    with pytest.raises(ConfigError, match=words):
        validate(config)


@pytest.mark.parametrize(
    ("model", "data", "options", "words"),
    [
        ("tabular", "world:table", {"feed": "soft_argmax"}, "model.name='tabular': .* reads mixtures of tokens"),
        ("lstm", "world:table", {"feed": "soft_argmax", "label": "expert"}, "label='expert': .*'soft_argmax'"),
        (
            "lstm",
            "world:table",
            {"label": "expert", "label_smoothing": 0.1},
            "label_smoothing=0.1 is set, .*label='true'",
        ),
        ("lstm", "world:table", {"label": "expert", "z_loss": 0.1}, "z_loss=0.1 is set, .*label='true'"),
        ("gaussian", "world:ring", {}, "model.name='gaussian': expected a model of sequences"),
    ],
)
def test_what_needs_another_model_or_world_is_named(model, data, options, words):
    config = base.get_config()
    config.objective.name, config.evaluate.evaluators = "scheduled_sampling", ()
    config.data.name, config.model.name = data, model
    config.scheduled_sampling.update(options)
    with pytest.raises(ConfigError, match=words):
        validate(config)
