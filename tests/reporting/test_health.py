"""What tells that a game goes wrong, and when it is said."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import ring_adversarial
from gentrain import health, metrics, process, train
from gentrain.sums import mean

RANDOM = np.random.default_rng(0)
DATA = RANDOM.normal(size=(64, 2)).astype(np.float32)


def signs(real, fake):
    return {name: mean(value) for name, value in health.compare(jnp.asarray(real), jnp.asarray(fake)).items()}


def test_distances_are_those_of_the_pairs():
    a, b = RANDOM.normal(size=(2, 5, 3)).astype(np.float32)
    apart = [[np.linalg.norm(x - y) for y in b] for x in a]
    np.testing.assert_allclose(health.distances(jnp.asarray(a), jnp.asarray(b)), apart, rtol=1e-5)
    x, y = RANDOM.integers(0, 3, (2, 4, 6))
    differ = [[(p != q).mean() for q in y] for p in x]
    np.testing.assert_allclose(health.distances(jnp.asarray(x), jnp.asarray(y)), differ, rtol=1e-6)


def test_samples_of_the_data_s_law_show_no_sign():
    found = [signs(RANDOM.normal(size=(64, 2)), RANDOM.normal(size=(64, 2))) for _ in range(60)]
    means = {name: np.mean([each[name] for each in found]) for name in found[0]}
    assert means["diversity"] == pytest.approx(1, abs=0.03) and means["nearest"] == pytest.approx(1, abs=0.05)
    error = np.std([each["apart"] for each in found]) / np.sqrt(60)
    assert abs(means["apart"]) < 4 * error < 0.02  # its mean is 0, not above: pairs of one and the same are left out


def test_each_way_to_fail_shows():
    one = signs(DATA, np.full((64, 2), 0.3, np.float32) + 1e-3 * DATA)
    assert one["diversity"] < 0.01 and one["nearest"] < 0.01
    few = signs(DATA, np.repeat(DATA[:4], 16, axis=0))  # four points, far from one another
    assert few["diversity"] > 0.5 and few["nearest"] < 0.01
    far = signs(DATA, DATA + 100)
    assert far["apart"] > 0.9 and far["diversity"] == pytest.approx(1, abs=1e-4)
    both = signs(np.zeros((64, 5), np.int32), np.ones((64, 5), np.int32))
    assert both["apart"] == pytest.approx(1)


def test_only_the_first_rows_are_compared():
    longer = np.concatenate([DATA, 1000 + DATA])
    assert signs(DATA, DATA) == pytest.approx(signs(longer, longer))


HEALTHY = {"generator/diversity": 0.95, "generator/nearest": 1.1, "generator/apart": 0.0, "critic/auc": 0.7}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("collapse", {"generator/diversity": 0.05}),
        ("collapse", {"generator/nearest": 0.02}),
        ("saturated", {"critic/auc": 0.9999}),
        ("chance", {"critic/auc": 0.5, "generator/apart": 0.4}),
    ],
)
def test_an_alarm_is_raised_once_when_it_lasts_and_again_when_it_comes_back(name, changes):
    alarms = health.Alarms()
    told = []
    for values in (HEALTHY, changes, HEALTHY, changes, changes, changes, HEALTHY, changes, changes):
        raised, lines = alarms.read(HEALTHY | values)
        assert set(raised) == {f"health/{each}" for each in health.ALARMS}
        assert [line.partition(":")[0] for line in lines] in ([], [name])
        told.append((raised[f"health/{name}"], len(lines)))
        assert sum(raised.values()) == raised[f"health/{name}"]
    assert told == [(0, 0), (0, 0), (0, 0), (0, 0), (1, 1), (1, 0), (0, 0), (0, 0), (1, 1)]


def test_success_is_not_taken_for_a_dead_critic():
    alarms = health.Alarms()
    for _ in range(3):
        raised, lines = alarms.read(HEALTHY | {"critic/auc": 0.5, "generator/apart": 0.005})
    assert not lines and not any(raised.values())


def test_other_objectives_have_no_such_signs():
    assert health.Alarms().read({"generator/loss": 1.0, "generator/nll": 1.0}) == ({}, [])


def test_a_missing_critic_or_an_undefined_sign_raises_nothing():
    alarms = health.Alarms()
    for _ in range(3):
        raised, lines = alarms.read({"generator/apart": 0.5, "generator/nearest": float("nan")})
    assert not lines and not any(raised.values())


def test_a_run_says_when_its_critic_does_not_learn(tmp_path, capsys):
    config = ring_adversarial.get_config()
    config.sweep, config.steps, config.data.batch_size, config.adversarial.critic_rate = (), 30, 64, 0.0
    config.log.every_steps, config.evaluate.every_steps, config.evaluate.examples = 10, 30, 64
    config.model.width = config.critic.width = 16
    train.train(config, tmp_path, signals.Stop())
    assert capsys.readouterr().out.count("chance: the critic tells nothing apart (auc 0.500)") == 1
    records = [record for record in metrics.read_jsonl(tmp_path / "metrics.jsonl") if "health/chance" in record]
    assert [record["health/chance"] for record in records] == [0, 1, 1]
    assert not any(record["health/collapse"] or record["health/saturated"] for record in records)
