"""The best checkpoint of a run: the one that evaluate.keep_best keeps, and that `best` means to all who read a run."""

import difflib
from collections.abc import Callable, Collection
from pathlib import Path

from ml_collections import ConfigDict

from gentrain import files
from gentrain.errors import ConfigError
from gentrain.options.identity import resolved, saved
from gentrain.reporting.runs import CHOOSE, Record, better_direction, curve, evaluator_metrics
from gentrain.runtime import peers
from gentrain.runtime.checkpoint import Checkpoints, steps_in


class Best:
    """The best checkpoint of a run while it trains, and whether evaluate.patience has run out.

    Both follow from metrics.jsonl and from the checkpoints that there are, so that a run that was killed, resumed or
    rewound answers as one that never was. Of two equal values the earlier step is the best.
    """

    def __init__(self, config: ConfigDict, workdir: Path):
        """Raises ConfigError where no evaluator of the run declares the metric, with a direction."""
        self.metric, self.patience = config.evaluate.keep_best, config.evaluate.patience
        self.steps, self.workdir = config.steps, workdir
        self.better = direction(config, self.metric) if self.metric else ""

    def standing(self, step: int, kept: Collection[int]) -> tuple[int, int]:
        """(best, since) of the evaluations up to a step: the best of the kept steps, -1 where none of them was
        measured, and how many evaluations came after it."""
        records = [one for one in files.read_jsonl(self.workdir / "metrics.jsonl") if one["step"] <= step]
        best = best_of(records, self.metric, self.better, kept)
        return best, sum(self.metric in record for record in records if record["step"] > best)

    def pin(self, step: int, checkpoints: Checkpoints) -> None:
        """Keeps the best checkpoint up to a step from being cleaned up."""
        if self.metric:
            checkpoints.best = peers.agree(self.standing(step, checkpoints.steps())[0])

    def after(self, step: int, checkpoints: Checkpoints, save: Callable[[], bool]) -> bool:
        """Whether the run is to end after the evaluation of a step, which is saved where it is the best so far or the
        end.

        save: saves the step, if its state is sound, and returns whether it did; without that a run does not end. Raises
        ConfigError where no evaluation has measured the metric.
        """
        if not self.metric:
            return False
        checkpoints.wait()  # the best one may still be on its way to the disk
        best, since = map(peers.agree, self.standing(step, {step, *checkpoints.steps()}))
        if best < 0 and not since:
            raise ConfigError(f"evaluate.keep_best={self.metric!r}: expected a metric that is measured on these data")
        over = self.is_over(since)
        saved = (best == step or over) and save()
        if best != step or saved:  # until the new best is being saved the old one stays
            checkpoints.best = best
        return over and saved

    def is_over(self, since: int) -> bool:
        return 0 < self.patience <= since

    def ended(self, step: int) -> str:
        """Why the run is over at this step; an empty string where it is not."""
        if step == self.steps:
            return f"at step {step}, the last"
        if not self.metric:
            return ""
        best, since = self.standing(step, steps_in(self.workdir / "checkpoints"))
        if not self.is_over(since):
            return ""
        plural = "s" if since > 1 else ""
        return f"at step {step}, early: {self.metric} was best at step {best}, {since} evaluation{plural} before"


def best_of(records: Collection[Record], metric: str, better: str, kept: Collection[int]) -> int:
    """The first of the kept steps with the best value of a metric; -1 where there is none."""
    steps, values = curve([record for record in records if record["step"] in kept], metric)
    return steps[values.index(CHOOSE[better](values))] if values else -1


def direction(config: ConfigDict, metric: str) -> str:
    """'lower' or 'higher', whichever is better of a metric of the run. Raises ConfigError where no evaluator of it
    declares that."""
    metrics = {
        name.replace("<split>", config.evaluate.split): declaration
        for name, declaration in evaluator_metrics(resolved(config)).items()
    }
    if found := better_direction(metric, metrics):
        return found
    able = [name for name, declaration in metrics.items() if declaration.better]
    near = difflib.get_close_matches(metric, able, 3, 0.0)
    expected = f"a metric with a better direction, as {', '.join(near)}" if near else "an evaluator that declares one"
    raise ConfigError(
        f"evaluate.keep_best={metric!r}: no evaluator of {tuple(config.evaluate.evaluators)} declares it with a better"
        f" direction; expected {expected}"
    )


def step_of(workdir: Path, which: str | int | None) -> int | None:
    """The step that 'best', 'last', a number or None, as 'last', means in a run; None: its newest good checkpoint.

    'best' is by the run's own evaluate.keep_best, or else by the negative log-likelihood of its split, of all
    checkpoints that are kept. Raises ConfigError where that is not known.
    """
    if which in (None, "last"):
        return None
    if str(which).isdecimal():
        return int(which)
    if which != "best":
        raise ConfigError(f"step={which}: expected best, last, or the step of a checkpoint")
    config = saved(workdir)
    metric = config.evaluate.keep_best or f"{config.evaluate.split}/nll"
    kept, records = steps_in(workdir / "checkpoints"), files.read_jsonl(workdir / "metrics.jsonl")
    step = best_of(records, metric, direction(config, metric), kept)
    if step < 0:
        raise ConfigError(f"step=best: no checkpoint of {workdir} has a {metric}: expected last, or a step")
    return step
