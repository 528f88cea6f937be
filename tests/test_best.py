"""The best checkpoint is kept over kills, resumes and rewinds, and a run ends when its patience does."""

import json

import jax
import numpy as np
import pytest

import gentrain
from gentrain import files, train
from gentrain.best import Best, step_of
from gentrain.errors import ConfigError, Stopped
from gentrain.runtime.checkpoint import steps_in
from tests.helpers import StopAt, assert_trees_close


class Kept:
    """Checkpoints of which the newest and the best stay, each there only once it has been waited for."""

    def __init__(self):
        self.there, self.pending, self.best = set(), None, None

    def steps(self):
        return sorted(self.there)

    def wait(self):
        if self.pending is not None:
            self.there = {step for step in self.there if step == self.best} | {self.pending}
            self.pending = None

    def save(self, step):
        self.wait()
        self.pending = step
        return True


def evaluations(best, kept, values, first, end):
    """A run that goes on from a step to another, or to where it is over; returns the step after its last."""
    kept.there, kept.pending = {step for step in kept.there if step <= first}, None
    best.pin(first, kept)
    for step in range(first, end):
        with open(best.workdir / "metrics.jsonl", "a") as file:
            print(json.dumps({"step": step, best.metric: values[step]}), file=file)
        if best.after(step, kept, lambda step=step: kept.save(step)):
            return step + 1
        kept.save(step)
    return end


@pytest.mark.parametrize(("metric", "choose"), [("valid/nll", np.argmin), ("modes/captured", np.argmax)])
def test_a_run_of_many_kills_keeps_the_best_and_ends_where_one_without_any_does(config, tmp_path, metric, choose):
    random = np.random.default_rng()
    config.evaluate.keep_best, config.evaluate.patience, config.evaluate.evaluators = metric, 6, ("likelihood", "modes")
    ended = []
    for trial in range(20):
        values = [*random.integers(0, 30, 40).tolist()]
        values[random.integers(1, 40)] = None  # it was not finite
        ends = []
        for kills in (0, 5):
            workdir = tmp_path / f"{trial}-{kills}"
            workdir.mkdir()
            best, kept = Best(config, workdir), Kept()
            step = evaluations(best, kept, values, 0, int(random.integers(1, 40)) if kills else 40)
            for kill in range(kills):  # each goes back to its newest checkpoint, or to the best
                first = int(random.choice(kept.steps()))
                step = evaluations(
                    best, kept, values, first, int(random.integers(first, 40)) if kill < kills - 1 else 40
                )
            known = [np.nan if value is None else value for value in values[:step]]
            wanted = int(choose(np.where(np.isnan(known), np.inf if choose is np.argmin else -np.inf, known)))
            kept.wait()
            assert kept.best == wanted and wanted in kept.steps()
            assert step == 40 or step - 1 - wanted == 6
            ends.append(step)
            assert bool(best.ended(step - 1)) == (step - 1 - wanted >= 6)
        assert ends[0] == ends[1]
        ended.append(ends[0] < 40)
    assert any(ended)


@pytest.fixture
def run_config(config, run_on_one_device, monkeypatch):
    """A run that is evaluated at each step, by numbers that are given: lowest at step 2, then at 6."""
    config.steps, config.evaluate.every_steps, config.evaluate.keep_best = 8, 1, "valid/nll"
    config.evaluate.evaluators, config.training.max_skipped, config.log.loggers = ("likelihood",), 1, ()
    config.checkpoint.keep_last, config.checkpoint.every_steps = 1, 1000
    values = [3.0, 2.0, 1.0, 1.4, 1.3, 1.2, 0.5, 2.0, 2.0]
    monkeypatch.setattr(train, "measure", lambda run, state, step: ({"valid/nll": values[step]}, {}))
    return config


@pytest.mark.parametrize("every", [1, 1000])
def test_the_best_step_is_saved_kept_and_found(run_config, tmp_path, every):
    run_config.checkpoint.every_steps = every  # with 1 it is neither the newest nor the trusted one for long
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(4))
    assert {2, 4} <= set(steps_in(tmp_path / "checkpoints")) <= {2, 3, 4}
    assert step_of(tmp_path, "best") == 2 and gentrain.load(tmp_path, step="best").step == 2
    train.train(run_config, tmp_path, StopAt())
    assert {6, 8} <= set(steps_in(tmp_path / "checkpoints")) <= {6, 7, 8}  # the best one of before has gone
    assert step_of(tmp_path, "best") == 6 and step_of(tmp_path, "last") is None and step_of(tmp_path, "8") == 8
    with pytest.raises(ConfigError, match="step=worst: expected best, last, or the step"):
        step_of(tmp_path, "worst")


def test_a_resumed_run_keeps_the_best_one_before_it_evaluates_again(run_config, tmp_path):
    run_config.checkpoint.every_steps, run_config.evaluate.every_steps = 1, 4  # the best of 0, 4 and 8 is 4
    for stop in (6, 7, None):
        if stop:
            with pytest.raises(Stopped):
                train.train(run_config, tmp_path, StopAt(stop))
        else:
            train.train(run_config, tmp_path, StopAt())
        assert 4 in steps_in(tmp_path / "checkpoints") and step_of(tmp_path, "best") == 4


def test_a_rewound_run_forgets_what_it_left(run_config, tmp_path, monkeypatch):
    run_config.checkpoint.keep_last = 9
    train.train(run_config, tmp_path, StopAt())
    assert step_of(tmp_path, "best") == 6
    monkeypatch.setattr(train, "measure", lambda run, state, step: ({"valid/nll": 1.0 + step}, {}))
    with pytest.raises(Stopped):
        train.train(run_config, tmp_path, StopAt(5), rewind=1)
    assert step_of(tmp_path, "best") == 1


def test_a_run_that_waited_in_vain_is_done_and_goes_on_only_where_it_is_told_to(run_config, tmp_path, capsys):
    run_config.evaluate.patience = 3
    train.train(run_config, tmp_path / "early", StopAt())
    status = files.read_json(tmp_path / "early" / "status.json")
    reason = "at step 5, early: valid/nll was best at step 2, 3 evaluations before"
    assert (status["state"], status["step"], status["reason"]) == ("done", 5, reason)
    assert steps_in(tmp_path / "early" / "checkpoints") == [2, 5]
    assert f"\ndone {reason}: {tmp_path / 'early' / 'report.html'}" in capsys.readouterr().out
    train.train(run_config, tmp_path / "early", StopAt())
    assert f"already done {reason}" in capsys.readouterr().out
    (tmp_path / "early" / "status.json").unlink()  # killed before it could say so
    train.train(run_config, tmp_path / "early", StopAt())
    assert files.read_json(tmp_path / "early" / "status.json")["reason"] == reason
    run_config.evaluate.patience = 4
    train.train(run_config, tmp_path / "early", StopAt())
    train.train(run_config, tmp_path / "straight", StopAt())
    states = [train.restored(train.build(run_config, tmp_path / name))[0] for name in ("early", "straight")]
    assert int(states[0].step) == 8
    assert_trees_close(*map(jax.device_get, states))


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("valid/nl", "as .*valid/nll"),  # nothing declares it
        ("test/nll", "as .*valid/nll"),  # it is of another split than is measured
        ("generator/loss", "no evaluator of .'likelihood',. declares it"),
    ],
)
def test_a_metric_that_cannot_be_best_is_told_before_anything_is_built(run_config, tmp_path, monkeypatch, metric, said):
    monkeypatch.setattr(train, "build", lambda *_, **__: pytest.fail("it was built"))
    run_config.evaluate.keep_best = metric
    with pytest.raises(ConfigError, match=said):
        train.train(run_config, tmp_path, StopAt())


def test_a_metric_that_is_declared_and_not_measured_is_told_at_the_first_evaluation(run_config, tmp_path):
    run_config.evaluate.keep_best = "valid/bits_per_dim"
    with pytest.raises(ConfigError, match="expected a metric that is measured on these data"):
        train.train(run_config, tmp_path, StopAt())
