"""A workdir is gone on with by the same run only, and the harmless changes are told."""

import json

import pytest

from configs import base
from gentrain.errors import CheckpointError, ConfigError
from gentrain.options import identity
from gentrain.options.tree import Run, declared_fields, flatten


def game():
    config = base.get_config()
    config.data.name, config.objective.name = "world:hmm", "adversarial"
    config.evaluate.evaluators = ("exact",)
    return config


def changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}-other"
    return (*value, 1) if isinstance(value, tuple) else value + 1


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(identity.resolved(game())))
    return path


def test_the_same_config_goes_on_and_a_new_workdir_is_free(saved, tmp_path):
    assert identity.check_same_run(game(), saved) == []
    assert identity.check_same_run(game(), tmp_path / "nothing.json") == []


def test_every_option_that_the_run_reads_and_that_is_what_it_is_counts(saved):
    fields = declared_fields()
    fixed = [key for key in Run(game()).reads() if not fields[key].metadata["may_change"]]
    sections = {key.rpartition(".")[0] for key in fixed}
    assert sections >= {"", "objective", "adversarial", "model", "critic", "model.lstm", "critic.lstm", "data",
                        "data.world", "optimizer"}  # fmt: skip
    for key in fixed:
        if key.endswith(".name"):
            continue  # another name selects other options: below
        config = game()
        config.update_from_flattened_dict({key: changed(flatten(config)[key])})
        with pytest.raises(ConfigError, match=key):
            identity.check_same_run(config, saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("objective.name", "cooperative"),
        ("model.name", "transformer"),
        ("critic.name", "transformer"),
        ("data.name", "world:markov"),
        ("optimizer.name", "sgd"),
    ],
)
def test_another_name_is_another_run(saved, key, value):
    config = game()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match=key):
        identity.check_same_run(config, saved)


def test_what_may_change_says_how_a_run_is_carried_out_and_not_what_it_is():
    """Whole sections of how; nothing of the data, the objective and the networks but these."""
    sections = {"training", "mesh", "checkpoint", "log", "sample", "evaluate", "report", "optimizer"}
    keys = {"steps", "sweep", "init_from", "init_from_vocab", "data.skip_batches"}
    names = {"prefetch", "compute_dtype", "remat", "logits_chunk", "attention", "attention_chunk", "scan_layers"}
    names |= {"critic_rate", "mediator_rate", "preflight"}  # learning rates, and a check
    for key, field in declared_fields().items():
        how = key in keys or key.partition(".")[0] in sections or key.rpartition(".")[2] in names
        assert field.metadata["may_change"] == (how and key != "optimizer.name"), key


def test_what_may_change_and_what_nothing_reads_does_not_count_and_is_told(saved):
    config = game()
    config.steps, config.optimizer.learning_rate, config.data.prefetch = 5, 0.5, 3
    config.model.compute_dtype = "bfloat16"
    config.scheduled_sampling.keep_true = 0.3  # nothing reads it here
    assert identity.check_same_run(config, saved) == [
        "data.prefetch: 2 -> 3",
        "model.compute_dtype: 'float32' -> 'bfloat16'",
        "optimizer.learning_rate: 0.001 -> 0.5",
        "scheduled_sampling.keep_true: 0.5 -> 0.3",
        "steps: 1000 -> 5",
    ]


def test_a_workdir_of_another_version_is_refused_in_one_line(saved):
    flat = json.loads(saved.read_text())
    del flat["adversarial.critic_rate"]
    saved.write_text(json.dumps(flat | {"optimizer.critic_scale": 1.0}))
    with pytest.raises(ConfigError, match="another version") as error:
        identity.check_same_run(game(), saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["", "null", '{"steps": 1'])
def test_a_damaged_config_is_refused_in_one_line_with_the_fix(saved, damage):
    saved.write_text(damage)
    with pytest.raises(CheckpointError, match=r"config.json is damaged .* delete it") as error:
        identity.check_same_run(game(), saved)
    assert "\n" not in str(error.value)
