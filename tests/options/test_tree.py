"""Every option has one owner, and what a run reads follows from what it selects."""

import inspect

import optax
import pytest

from configs import base
from gentrain import plugins, worlds
from gentrain.datasets.sources import world_options
from gentrain.errors import ConfigError
from gentrain.objectives.adversarial.games import GAMES
from gentrain.objectives.adversarial_options import LOG_RATIO_GAMES, OTHER_GAMES
from gentrain.options import check, tree
from gentrain.options.sections import DECAY, EPSILON, MOMENTS, MOMENTUM, OPTIMIZERS


def reads(**changes) -> set[str]:
    config = base.get_config()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return tree.Run(config).reads()


def test_every_key_of_the_config_has_a_declaration_and_the_other_way_round():
    flat, fields = tree.flatten(base.get_config()), tree.declared_fields()
    assert flat.keys() == fields.keys()
    assert all(flat[key] == fields[key].default for key in flat)


def test_by_default_nothing_is_added_to_an_objective_and_the_model_s_own_law_is_drawn_from():
    """Adam's constants, AdamW without decay and gradients of norm 1 at most, apart."""
    flat = tree.flatten(base.get_config())
    nothing = ["adversarial.r1", "adversarial.r2", "adversarial.entropy_weight", "adversarial.label_smoothing"]
    nothing += ["adversarial.likelihood_weight", "adversarial.likelihood_final", "adversarial.spectral_norm"]
    nothing += [
        f"{name}.{key}" for name in ("likelihood", "scheduled_sampling") for key in ("label_smoothing", "z_loss")
    ]
    nothing += ["model.dropout", "critic.dropout", "mediator.dropout", "optimizer.weight_decay", "training.ema_decay"]
    assert not any(flat[key] for key in [*nothing, "sample.top_k", "evaluate.batches", "data.conditional"])
    ones = ["sample.temperature", "sample.top_p", "training.microbatches", "adversarial.critic_rate"]
    assert {flat[key] for key in [*ones, "cooperative.mediator_rate", "optimizer.clip_norm"]} == {1}
    assert [flat[f"optimizer.{key}"] for key in ("b1", "b2", "eps")] == [0.9, 0.99, 0]
    assert flat["objective.real_prior"] == 0.5 and flat["evaluate.split"] == "valid"  # never the test split unasked


def test_objectives_read_their_own_sections_alone():
    sections = {name: {key.partition(".")[0] for key in reads(objective__name=name)} for name in
                ("likelihood", "scheduled_sampling", "adversarial", "cooperative")}  # fmt: skip
    for name, found in sections.items():
        assert found & sections.keys() == {name}
    assert "critic" in sections["adversarial"] and "mediator" in sections["cooperative"]
    assert not {"critic", "mediator"} & sections["likelihood"]


def test_a_family_reads_its_own_options_and_the_shared_ones_it_names():
    assert {"model.width", "model.lstm.tie_embeddings"} <= reads()
    assert not {key for key in reads() if key.startswith("model.transformer")}
    gaussian = reads(model__name="gaussian", data__name="world:gaussian", evaluate__evaluators=("exact",))
    assert "model.gaussian.mean" in gaussian and "model.width" not in gaussian


def test_conditions_between_options():
    assert "adversarial.discount" not in reads(objective__name="adversarial")
    assert "adversarial.discount" in reads(objective__name="adversarial", adversarial__reward="discounted")
    assert "optimizer.momentum" not in reads() and "optimizer.momentum" in reads(optimizer__name="sgd")
    assert "data.world.states" in reads(data__name="world:hmm")
    assert "data.world.states" not in reads(data__name="world:markov")


def test_sources_read_what_the_sources_in_them_read():
    mixture = reads(data__name="mixture", data__mixture__sources=(("text:a", 1.0, 0), ("surnames", 1.0, 0)))
    assert {"data.mixture.sources", "data.text.unit", "data.valid_fraction", "data.tokenizer"} <= mixture
    assert "data.image_size" in reads(data__name="captions:images:x")


def test_a_critic_has_no_options_of_families_that_cannot_judge():
    flat = tree.flatten(base.get_config())
    assert not [key for key in flat if key.startswith(("critic.gaussian", "mediator.gaussian", "mediator.dcgan"))]


def test_tables_beside_other_libraries_say_what_those_say():
    takes = {name: set(inspect.signature(getattr(optax, name)).parameters) for name in OPTIMIZERS}
    for option, names in (("b1", MOMENTS), ("b2", MOMENTS), ("eps", EPSILON), ("momentum", MOMENTUM),
                          ("weight_decay", DECAY)):  # fmt: skip
        assert {name for name in OPTIMIZERS if option in takes[name]} == set(names), option


def test_tables_of_options_name_what_there_is():
    assert set(GAMES) == {*LOG_RATIO_GAMES, *OTHER_GAMES}
    assert {name for name, game in GAMES.items() if game.log_ratio} == set(LOG_RATIO_GAMES)
    assert {*worlds.BUILDERS, *worlds.MIXTURES} == {*world_options.SEQUENCES, *world_options.POINTS}


def test_every_plugin_of_models_makes_what_its_options_say():
    for name in plugins.names("models"):
        options = tree.plugin_options("models", name)
        assert options.makes in ("sequences", "images", "points")
        critic = hasattr(plugins.load("models", name), "critic")
        assert critic <= (not tree.plugin_options("models", name, "critic").prefixes)


def test_a_set_option_that_no_variant_reads_is_refused_and_one_that_some_variant_reads_is_not():
    config = base.get_config()
    config.scheduled_sampling.keep_true = 0.3
    with pytest.raises(ConfigError, match="nothing reads it"):
        check.validate(config)
    config.sweep = ({"objective.name": "likelihood"}, {"objective.name": "scheduled_sampling"})
    check.validate(config)
    with pytest.raises(ConfigError, match="nothing reads it"):
        check.validate(config, ["adversarial.r1"])  # set by a flag, even if to its default


def test_a_variant_may_set_an_option_of_any_type():
    config = base.get_config()
    teachers = (("generator", "runs/one", "generator"),)
    config.sweep = ({"init_from": "runs/other"}, {"init_from": teachers})
    assert [variant.init_from for variant in check.variants(config).values()] == ["runs/other", teachers]
    assert config.init_from == ""


def test_a_variant_is_named_by_where_it_starts_only_if_nothing_else_tells_it_apart():
    config = base.get_config()
    config.sweep = ({"seed": 1, "init_from": "a"}, {"seed": 2, "init_from": "b"})
    assert list(check.variants(config)) == ["seed=1", "seed=2"]
    config.sweep = ({"seed": 1, "init_from": "a"}, {"seed": 1, "init_from": "b"})
    assert list(check.variants(config)) == ["seed=1,init_from=a", "seed=1,init_from=b"]
