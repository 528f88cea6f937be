"""Distillation: gradients of whole sequences against enumeration, the ends of the dial, prefixes, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from gentrain import files, plugins, train
from gentrain.datasets.spec import TextSpec
from gentrain.divergences import kl_from_log, normalised_js_from_logits
from gentrain.errors import ConfigError
from gentrain.models.base import token_nlls
from gentrain.objectives.distillation import Prefixes
from gentrain.options import check
from gentrain.options.fit import fit
from tests.helpers import StopAt, assert_trees_close
from tests.objectives.helpers import every_string, whole_batch

VOCAB, LENGTH, KEY = 3, 3, jax.random.key(1)
STRINGS = every_string(VOCAB, LENGTH)


def config_of(real_prior=0.3, **options):
    config = base.get_config()
    config.data.name, config.objective.name, config.objective.real_prior = "world:table", "distillation", real_prior
    config.data.world.vocab, config.data.world.length = VOCAB, LENGTH
    config.model.name = config.teacher.name = "tabular"
    config.distillation.update(options)
    return config


def build(seed=0, real_prior=0.3, family="tabular", sources=1, **options):
    """An objective with random parameters of student and teacher."""
    config = config_of(real_prior, **options)
    config.model.name = family
    objective = plugins.load("objectives", "distillation").build(config, TextSpec(VOCAB, LENGTH, sources=sources))
    random = np.random.default_rng(seed)
    params, _ = objective.init(KEY, whole_batch(STRINGS))
    return objective, jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), params)


def train_by_world(config, workdir, steps, evaluator):
    """The records of a run whose teacher is the world."""
    config.init_from = (("teacher", "world", "generator"),)
    config.steps, config.data.batch_size, config.optimizer.name = steps, 256, "adam"
    config.optimizer.learning_rate, config.optimizer.clip_norm, config.log.loggers = 0.1, 0.0, ()
    config.evaluate.evaluators, config.evaluate.every_steps = (evaluator,), 1000
    fit(config)
    check.validate(config)
    train.train(config, workdir, StopAt())
    return files.read_jsonl(workdir / "metrics.jsonl")


def law(objective, params, player):
    """log-probabilities of every string."""
    return log_probs(objective, params, player).sum(1)


def log_probs(objective, params, player):
    """log-probability of each token of every string."""
    model, strings = objective.teacher if player == "teacher" else objective.model, jnp.asarray(STRINGS)
    return -token_nlls(model, params[player], model.inputs(strings), strings)


def expected_gradient(objective, params, log_drawn=None, drawn_by="generator"):
    """E of the gradient of one row's loss, by enumeration of the strings, which a player draws.

    log_drawn: the log-probabilities of their tokens, where the law that drew them is another one."""
    known = log_drawn is not None
    log_drawn = log_drawn if known else log_probs(objective, params, drawn_by)

    def of_row(generator, tokens, drawn, row):
        batch = {"tokens": tokens[None], "mask": jnp.ones((1, LENGTH), bool), "row": row[None]}
        prefixes = Prefixes(batch["tokens"], batch["mask"], drawn[None] if known else None)
        players = params | {"generator": generator}
        loss = objective.sequence_loss if objective.options.level == "sequence" else objective.token_loss
        return loss(players, batch, prefixes, KEY)[0].total

    of_rows = jax.vmap(jax.grad(of_row), (None, 0, 0, 0))
    grads = of_rows(params["generator"], jnp.asarray(STRINGS), log_drawn, jnp.arange(27))
    return jax.tree.map(lambda g: jnp.tensordot(jnp.exp(log_drawn.sum(1)), g, 1), grads)["table"]


def exact_gradient(objective, params, real_prior):
    """Of the sequences' normalised divergence."""
    log_p = law(objective, params, "teacher")

    def divergence(generator):
        log_q = law(objective, {"generator": generator}, "generator")
        return normalised_js_from_logits(log_p, log_q, real_prior)

    return jax.grad(divergence)(params["generator"])["table"]


@pytest.mark.parametrize("real_prior", [0.01, 0.3, 0.9, 1.0])
def test_single_and_long_are_the_gradient_of_whole_sequences_and_single_alone_is_not(real_prior):
    with jax.enable_x64(True):
        for seed in range(3):
            objective, params = build(seed, real_prior, level="sequence")
            exact = exact_gradient(objective, params, real_prior)
            np.testing.assert_allclose(expected_gradient(objective, params), exact, atol=1e-8)
            alone, _ = build(seed, real_prior, level="sequence", long_term="none")
            apart = np.abs(expected_gradient(alone, params) - exact).max() / np.abs(exact).max()
            assert apart > 0.005
            by_token, _ = build(seed, real_prior, level="token")
            assert np.abs(expected_gradient(by_token, params) - exact).max() / np.abs(exact).max() > 0.005


def test_single_alone_is_the_token_divergence_at_the_far_end_and_forward_kl_on_the_teachers_prefixes_is_exact():
    with jax.enable_x64(True):
        single, params = build(0, 1.0, level="sequence", long_term="none")
        token, _ = build(0, 1.0, level="token")
        np.testing.assert_allclose(expected_gradient(single, params), expected_gradient(token, params), atol=1e-10)
        forward, params = build(1, 0.0, level="token", prefixes="teacher")
        batch = whole_batch(STRINGS)
        value, metrics = forward.token_loss(params, batch, Prefixes(batch["tokens"], batch["mask"]), KEY)
        log_p, log_q = (law(forward, params, player) for player in ("teacher", "generator"))

        def of_row(tokens):
            one = whole_batch(tokens[None])
            return forward.token_loss(params, one, Prefixes(one["tokens"], one["mask"]), KEY)[0].total

        found = jnp.sum(jnp.exp(log_p) * jax.vmap(of_row)(batch["tokens"]))
        np.testing.assert_allclose(found, kl_from_log(log_p, log_q), rtol=1e-10)
        assert value.weight == 27 * LENGTH and metrics["divergence"].total == value.total


@pytest.mark.parametrize(("end", "near"), [(0.0, 1e-3), (1.0, 1 - 1e-3)])
def test_the_dial_reaches_its_ends(end, near):
    """Log-ratios up to 5: loss and gradient a thousandth from an end are within 2 % of those there."""
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        log_p = jax.nn.log_softmax(jnp.asarray(random.normal(size=12)))
        shift = jnp.asarray(random.uniform(-2.4, 2.4, 12))

        def value(logits, pi):
            return normalised_js_from_logits(log_p, logits, pi)

        both = jax.value_and_grad(value)
        (one, slope), (other, other_slope) = both(log_p + shift, end), both(log_p + shift, near)
        assert abs(other / one - 1) < 0.02
        assert np.linalg.norm(other_slope - slope) < 0.02 * np.linalg.norm(slope)


def descend(gradient, table, steps=500, rate=1.0):
    """The table after plain gradient steps."""
    step = lambda table, _: (table - rate * gradient(table), None)
    return jax.jit(lambda table: jax.lax.scan(step, table, None, steps)[0])(table)


@pytest.mark.parametrize("seed", range(3))
def test_too_small_a_student_is_surer_towards_the_far_end_of_the_dial(seed):
    """In random worlds, by exact gradients: its entropy falls along pi."""
    with jax.enable_x64(True):
        entropies = []
        for pi in (0.1, 0.5, 0.9):
            objective, params = build(seed, pi, "factorised", level="sequence")
            gradient = lambda table, of=(objective, params, pi): exact_gradient(
                of[0], {**of[1], "generator": {"table": table}}, of[2]
            )
            table = descend(gradient, jnp.zeros((LENGTH, VOCAB)))
            assert np.abs(gradient(table)).max() < 1e-4
            log_q = jax.nn.log_softmax(table)
            entropies.append(float(-jnp.sum(jnp.exp(log_q) * log_q)))
        assert entropies[0] > entropies[1] > entropies[2]


@pytest.mark.parametrize("seed", range(3))
def test_whose_prefixes_are_read_moves_the_optimum_of_a_student_that_cannot_be_its_teacher_and_no_other(seed):
    """In random worlds, by exact gradients: on the teacher's own prefixes, and on the student's."""
    with jax.enable_x64(True):

        def gradients(family, table):
            """Of the token divergence on the prefixes of both, and with the student's parameters."""
            objective, params = build(seed, 0.5, family)
            params = params | {"generator": {"table": table}}
            return [expected_gradient(objective, params, drawn_by=player) for player in ("teacher", "generator")]

        teacher = build(seed, 0.5)[1]["teacher"]["table"]
        for gradient in gradients("tabular", teacher):
            np.testing.assert_allclose(gradient, 0, atol=1e-12)
        table = descend(lambda table: gradients("factorised", table)[0], jnp.zeros((LENGTH, VOCAB)))
        on_data, on_own = gradients("factorised", table)
        assert np.abs(on_data).max() < 1e-6 and np.abs(on_own).max() > 1e-3


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_stale_roll_outs_are_corrected_by_the_weights_of_prefixes_and_by_nothing_less(level):
    with jax.enable_x64(True):
        for seed in range(3):
            made = {
                how: build(seed, 0.3, level=level, updates=3, importance=how) for how in ("prefix", "token", "none")
            }
            objective, params = made["prefix"]
            before = jax.tree.map(lambda x: x + 0.3 * jnp.sin(7 * x), params)
            stale = log_probs(objective, before, "generator")
            fresh = expected_gradient(objective, params)
            if level == "sequence":
                np.testing.assert_allclose(fresh, exact_gradient(objective, params, 0.3), atol=1e-8)
            np.testing.assert_allclose(expected_gradient(objective, params, stale), fresh, atol=1e-8)
            for how in ("token", "none"):
                bias = np.abs(expected_gradient(made[how][0], params, stale) - fresh).max()
                assert bias > 0.005 * np.abs(fresh).max()


@pytest.mark.parametrize("importance", ["token", "prefix"])
def test_the_other_rows_are_a_baseline_that_leaves_the_mean_gradient(importance):
    """Of all pairs of rows, drawn by the student as it was."""
    with jax.enable_x64(True):
        made = {
            how: build(0, 0.3, level="sequence", updates=2, importance=importance, baseline=how)
            for how in ("none", "leave_one_out")
        }
        objective, params = made["none"]
        log_drawn = log_probs(objective, jax.tree.map(lambda x: 0.8 * x, params), "generator")
        numbers = jnp.asarray(np.indices((27, 27)).reshape(2, -1).T)

        def of_pair(generator, pair, objective):
            batch = {"tokens": jnp.asarray(STRINGS)[pair], "mask": jnp.ones((2, LENGTH), bool), "row": jnp.arange(2)}
            prefixes = Prefixes(batch["tokens"], batch["mask"], log_drawn[pair])
            return objective.sequence_loss(params | {"generator": generator}, batch, prefixes, KEY)[0].total

        weights = jnp.exp(log_drawn.sum(1)[numbers].sum(1))
        plain, less = (
            jax.vmap(jax.grad(of_pair), (None, 0, None))(params["generator"], numbers, made[how][0])["table"]
            for how in made
        )
        expected = jnp.tensordot(weights, plain, 1)
        np.testing.assert_allclose(jnp.tensordot(weights, less, 1), expected, atol=1e-8)
        assert np.abs(less - plain).max() > 0.1 * np.abs(expected).max()


def test_a_clipped_ratio_moves_no_further_in_its_own_favour():
    objective, _ = build(0, 1.0, level="sequence", updates=2, clip=0.2)
    ratio = jnp.asarray([[0.5, 1.0, 1.5, 1.0]])
    prefixes = Prefixes(jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool), -jnp.log(ratio))
    for sign in (1.0, -1.0):  # of what later tokens cost
        single, long = objective.weigh(prefixes, jnp.zeros((1, 4)), jnp.asarray([[0.0, 0.0, 0.0, sign]]))
        np.testing.assert_allclose(single, ratio, rtol=1e-6)
        stopped = [0, 1, 1.5, 0] if sign > 0 else [-0.5, -1, 0, 0]
        np.testing.assert_allclose(long[0], stopped, rtol=1e-6)


def test_all_updates_of_a_step_read_the_sequences_of_its_beginning(tmp_path, run_on_one_device):
    objective, params = build(0, 0.5, updates=3)
    assert objective.players == ("generator",) * 3
    batch = whole_batch(STRINGS)
    with_drawn = batch | objective.draw(params, batch, KEY, jnp.zeros((), jnp.int32))
    moved = params | {"generator": jax.tree.map(lambda x: 1.1 * x, params["generator"])}
    one, other = (objective.loss("generator", moved, {}, with_drawn, key, 0)[0] for key in jax.random.split(KEY))
    assert one.total == other.total
    config = config_of(0.7, level="sequence", updates=2, importance="prefix", baseline="leave_one_out")
    first, *_, last = train_by_world(config, tmp_path / "run", 150, "teacher")
    for way in ("forward_kl", "reverse_kl"):
        assert first[f"teacher/{way}"] > 0.1 and abs(last[f"teacher/{way}"]) < 5e-3
    assert last["teacher/sample_nll"] == pytest.approx(last["teacher/own_nll"], abs=0.05)


def test_several_teachers_are_the_mean_of_their_laws_or_each_that_of_its_source():
    alone, params = build(0, 0.4)
    batch = whole_batch(STRINGS) | {"source": jnp.arange(27) % 2}
    prefixes = Prefixes(batch["tokens"], batch["mask"])
    other = build(1)[1]["teacher"]
    both = params | {"teacher_2": other}
    laws = [jax.nn.log_softmax(player["table"]) for player in (params["teacher"], other)]

    def loss(objective, params, chosen=slice(None)):
        rows = jax.tree.map(lambda x: x[chosen], batch)
        return objective.token_loss(params, rows, Prefixes(rows["tokens"], rows["mask"]), KEY)[0].total

    mean, _ = build(0, 0.4, teachers=2)
    assert mean.frozen == ("teacher", "teacher_2")
    one = params | {"teacher": {"table": jnp.logaddexp(*laws) - jnp.log(2.0)}}
    np.testing.assert_allclose(loss(mean, both), loss(alone, one), rtol=1e-5)
    by_source, _ = build(0, 0.4, sources=2, teachers=2, teachers_by="source")
    expected = loss(alone, params, slice(0, None, 2)) + loss(alone, params | {"teacher": other}, slice(1, None, 2))
    np.testing.assert_allclose(loss(by_source, both), expected, rtol=1e-5)
    assert np.abs(loss(by_source, both) - loss(mean, both)) > 0.01
    whole, _ = build(0, 0.4, level="sequence", teachers=2)
    same, _ = build(0, 0.4, level="sequence")
    found, wanted = whole.sequence_loss(both, batch, prefixes, KEY), same.sequence_loss(one, batch, prefixes, KEY)
    np.testing.assert_allclose(found[0].total, wanted[0].total, rtol=1e-4)
    with pytest.raises(ConfigError, match="of 2 sources, one for each teacher, not 1"):
        build(teachers=2, teachers_by="source")


def test_prefixes_are_whose_the_option_says_and_prompts_weigh_nothing():
    batch = whole_batch(STRINGS)
    sure = {"table": jnp.zeros((13, VOCAB)).at[:, 1].set(40.0)}, {"table": jnp.zeros((13, VOCAB)).at[:, 2].set(40.0)}
    params = {"generator": sure[0], "teacher": sure[1]}
    expected = {"data": None, "student": 1, "teacher": 2}
    for whose, token in expected.items():
        objective, _ = build(prefixes=whose, prompt=1)
        found = objective.prefixes(params, batch, KEY, 0)
        assert (found.tokens[:, 0] == STRINGS[:, 0]).all() and not found.mask[:, 0].any() and found.mask[:, 1:].all()
        assert (found.tokens == STRINGS).all() if token is None else (found.tokens[:, 1:] == token).all()
    half, _ = build(prefixes="mixed", student_share=0.5)
    tokens = half.prefixes(params, batch, KEY, 0).tokens
    own = (tokens == 1).all(1) & (STRINGS != 1).any(1)
    assert 5 < own.sum() < 22 and (tokens[~own] == STRINGS[~own]).all()
    rising, _ = build(prefixes="mixed", share_schedule="linear", student_share=1.0)
    steps = half.steps
    assert (rising.prefixes(params, batch, KEY, 0).tokens == STRINGS).all()
    assert (rising.prefixes(params, batch, KEY, steps).tokens == 1).all()


def test_rows_that_only_fill_up_a_batch_count_for_nobody():
    for options in (
        {"level": "token"},
        {"level": "sequence"},
        {"level": "token", "likelihood": 0.5, "prefixes": "data"},
    ):
        objective, params = build(**options)
        batch = whole_batch(STRINGS)
        batch["mask"] &= (batch["row"] < 20)[:, None]
        other = batch | {"tokens": jnp.where(batch["mask"], batch["tokens"], 1)}
        one, two = (objective.loss("generator", params, {}, each, KEY, 0)[0] for each in (batch, other))
        np.testing.assert_allclose(one.total, two.total, rtol=1e-6)
        assert one.weight == 20 * LENGTH


@pytest.mark.parametrize(
    ("real_prior", "options", "text"),
    [
        (0.0, {"level": "sequence"}, "objective.real_prior=0.0: expected above 0 with level='sequence'"),
        (0.5, {"level": "sequence", "prefixes": "data"}, "expected 'student' with level='sequence'"),
        (0.5, {"updates": 2, "prefixes": "data"}, "prefixes='data': expected 'student' with distillation.updates=2"),
        (0.5, {"teachers": 2, "prefixes": "teacher"}, "expected nothing that is drawn from the teacher"),
        (0.5, {"teachers_by": "source"}, "expected 'mean' with distillation.teachers=1"),
        (0.5, {"importance": "prefix"}, "expected 'token' with distillation.updates=1"),
        (0.5, {"student_share": 0.3}, "student_share=0.3 is set, and nothing reads it"),
        (1.5, {}, "objective.real_prior=1.5: expected"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(real_prior, options, text):
    with pytest.raises(ConfigError, match=text):
        check.validate(config_of(real_prior, **options))


def test_a_prompt_leaves_something_to_learn():
    with pytest.raises(ConfigError, match="prompt=3: expected less than the 3 tokens of a row"):
        build(prompt=3)


def test_a_world_is_a_teacher_and_a_student_that_can_be_it_becomes_it(tmp_path, run_on_one_device):
    config = config_of(0.7, level="token")
    records = train_by_world(config, tmp_path / "run", 250, "exact")
    assert records[0]["exact/forward_kl"] > 0.1 and records[-1]["exact/forward_kl"] < 1e-3
    config.teacher.name = "lstm"
    with pytest.raises(ConfigError, match=r"expected teacher.name='tabular'"):
        train.train(config, tmp_path / "other", StopAt())


@pytest.mark.parametrize(
    ("real_prior", "options", "text"),
    [
        (1.0, {"estimator": "k3"}, r"estimator='k3': expected one of .*; as a reward, k3 descends KL\[Q"),
        (0.5, {"estimator": "k2"}, "objective.real_prior=0.5: expected 1 with estimator='k2'"),
        (1.0, {"estimator": "k2", "prefixes": "data"}, "expected 'student' with estimator='k2'"),
        (1.0, {"estimator": "truncated"}, "top_k=0: expected 1 or more with estimator='truncated'"),
    ],
    ids=str,
)
def test_estimators_say_what_they_are_of(real_prior, options, text):
    with pytest.raises(ConfigError, match=text):
        check.validate(config_of(real_prior, **options))


@pytest.mark.parametrize("real_prior", [0.0, 0.4, 1.0])
def test_by_pieces_of_the_vocabulary_it_is_the_same(real_prior):
    """Loss and gradient with logits_chunk and without it; teacher and student of other widths and temperatures."""
    found = {}
    for chunk in (0, 4):
        config = config_of(real_prior, prefixes="data", teacher_temperature=1.5, student_temperature=0.8)
        config.model.name = config.teacher.name = "transformer"
        config.model.width, config.teacher.width, config.model.transformer.logits_chunk = 16, 24, chunk
        config.model.transformer.heads = config.model.transformer.kv_heads = 2
        config.teacher.transformer.heads = config.teacher.transformer.kv_heads = 2
        objective = plugins.load("objectives", "distillation").build(config, TextSpec(50, 6, 49))
        tokens = jnp.asarray(np.random.default_rng(0).integers(0, 49, (4, 6)), jnp.int32)
        batch = whole_batch(tokens) | {"row": jnp.arange(4, dtype=jnp.int32)}
        params, _ = objective.init(KEY, batch)

        def loss(generator, params=params, objective=objective, batch=batch):
            return objective.loss("generator", params | {"generator": generator}, {}, batch, KEY, 0)[0].total

        found[chunk] = jax.jit(jax.value_and_grad(loss))(params["generator"])
    (whole, slope), (pieces, other) = found.values()
    np.testing.assert_allclose(pieces, whole, rtol=1e-5)
    assert_trees_close(slope, other, rtol=1e-3, atol=1e-6)
