"""When a sign that a run goes wrong is said, and when not."""

import pytest

from configs import ring_adversarial
from gentrain import files, train
from gentrain.objectives.adversarial import Adversarial
from gentrain.objectives.cooperative import Cooperative
from gentrain.objectives.likelihood import Likelihood
from gentrain.reporting.alarms import Alarms
from gentrain.runtime import signals

HEALTHY = {"generator/diversity": 0.95, "generator/nearest": 1.1, "generator/apart": 0.0, "critic/auc": 0.7,
           "critic/bound": 0.05}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("collapse", {"generator/diversity": 0.05}),
        ("collapse", {"generator/nearest": 0.02}),
        ("saturated", {"critic/auc": 0.9999}),
        ("chance", {"critic/auc": 0.5, "generator/apart": 0.4}),
        ("above_chance", {"critic/auc": 0.45, "critic/bound": -11.0}),
    ],
)
def test_an_alarm_is_raised_once_when_it_lasts_and_again_when_it_comes_back(name, changes):
    alarms = Alarms(Adversarial.alarms)
    history = []
    for values in (HEALTHY, changes, HEALTHY, changes, changes, changes, HEALTHY, changes, changes):
        raised, lines = alarms.read(HEALTHY | values)
        assert set(raised) == {f"health/{alarm.name}" for alarm in Adversarial.alarms}
        assert [line.partition(":")[0] for line in lines] in ([], [name])
        history.append((raised[f"health/{name}"], len(lines)))
        assert sum(raised.values()) == raised[f"health/{name}"]
    assert history == [(0, 0), (0, 0), (0, 0), (0, 0), (1, 1), (1, 0), (0, 0), (0, 0), (1, 1)]


@pytest.mark.parametrize("name", ["saturated", "chance", "above_chance"])
def test_what_is_said_of_a_critic_names_what_works_for_text(name):
    text = next(alarm.text for alarm in Adversarial.alarms if alarm.name == name)
    assert "shorter pieces" in text and "objective.name='cooperative'" in text


def test_success_is_not_taken_for_a_dead_critic():
    """The loss of a critic of equal laws is that of the prior, but for noise."""
    alarms = Alarms(Adversarial.alarms)
    for _ in range(3):
        raised, lines = alarms.read(HEALTHY | {"critic/auc": 0.5, "generator/apart": 0.005, "critic/bound": -0.01})
    assert not lines and not any(raised.values())


def test_other_objectives_have_no_such_signs():
    assert Alarms(Likelihood.alarms).read({"generator/loss": 1.0, "generator/nll": 1.0}) == ({}, [])
    assert [alarm.name for alarm in Cooperative.alarms] == ["collapse"]  # its mediator is no critic


def test_a_missing_critic_or_an_undefined_sign_raises_nothing():
    alarms = Alarms(Adversarial.alarms)
    for _ in range(3):
        raised, lines = alarms.read({"generator/apart": 0.5, "generator/nearest": float("nan")})
    assert not lines and not any(raised.values())


def test_a_run_says_when_its_critic_does_not_learn(tmp_path, capsys, run_on_one_device):
    config = ring_adversarial.get_config()
    config.sweep, config.steps, config.data.batch_size, config.adversarial.critic_rate = (), 30, 64, 0.0
    config.log.every_steps, config.evaluate.evaluators = 10, ()
    config.model.width = config.critic.width = 16
    train.train(config, tmp_path, signals.Stop())
    assert capsys.readouterr().out.count("chance: the critic tells nothing apart (auc 0.500)") == 1
    records = [record for record in files.read_jsonl(tmp_path / "metrics.jsonl") if "health/chance" in record]
    assert [record["health/chance"] for record in records] == [0, 1, 1]
    assert not any(record["health/collapse"] or record["health/saturated"] for record in records)
