"""The run: build, restore, loop, evaluate, log, save. Read this first."""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gentrain import data, health, metrics, plots, plugins, process, report, sharding, update
from gentrain import program as programs
from gentrain.checkpoint import Checkpoints, restore_params
from gentrain.config import check_same_run, resolved
from gentrain.errors import CheckpointError, Stopped
from gentrain.evaluators import Evaluator
from gentrain.models import SequenceModel
from gentrain.phases import Phases
from gentrain.program import Program
from gentrain.update import TrainState


class Run(NamedTuple):
    """A program, its data and what is measured."""

    config: ConfigDict
    workdir: Path
    program: Program
    data: data.Data
    evaluators: list[Evaluator]


def build(config: ConfigDict, workdir: Path) -> Run:
    """Everything a run needs but its state."""
    mesh = sharding.make_mesh(config.mesh, config.data.batch_size, config.training.microbatches)
    source = data.build(config, workdir, sharding.local_rows(mesh, config.data.batch_size))
    program = programs.build(config, source.spec, mesh)
    evaluators = [
        plugins.load("evaluators", name).build(config, program.objective.model, source, program.mesh)
        for name in config.evaluate.evaluators
    ]
    return Run(config, workdir, program, source, evaluators)


def start(run: Run, checkpoints: Checkpoints, say: Callable[[str], None]) -> TrainState:
    """The state to go on from. The ways to start, in order; the first that applies is taken."""
    # 1. This workdir's own newest good checkpoint: running the command again resumes, whatever else the config says.
    if found := checkpoints.restore(run.program.state):
        step, state, _ = found
        say(f"resuming at step {step}")
        return state
    state = run.program.init()
    # 2. The parameters of another run; optimiser state, averages and step are new.
    if run.config.init_from:
        wanted = run.program.state.params
        step, params = restore_params(Path(run.config.init_from) / "checkpoints", wanted)
        say(f"starting from the parameters of {run.config.init_from} at step {step}: {', '.join(params)}")
        ema = jax.tree.map(jnp.copy, state.params | params) if state.ema else {}
        state = replace(state, params=state.params | params, ema=ema)
    # 3. Scratch.
    return state


def measure(run: Run, state: TrainState, step: int) -> tuple[dict[str, float], list[Any]]:
    """Numbers and samples of all evaluators, on the averaged parameters where there are any."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(run.config.seed), 2), step)
    numbers: dict[str, float] = {}
    samples: list[Any] = []
    for evaluator in run.evaluators:
        for label, value in evaluator(state.ema or state.params, key).items():
            if isinstance(value, metrics.Texts | metrics.Images):
                samples.append(value)
            else:
                numbers[label] = value
    return numbers, samples


def evaluate(run: Run, state: TrainState, step: int, out: metrics.Writer) -> None:
    """Measures and writes down."""
    numbers, samples = measure(run, state, step)
    for value in samples:
        out.samples(step, value)
        if isinstance(value, metrics.Texts):
            first_lines = [text.strip().splitlines()[0][:60] for text in value.texts if text.strip()]
            out.say(f"step {step}: sampled {' | '.join(first_lines[:8])}")
    out.scalars(step, numbers)
    first = list(numbers.items())[:6]
    held_out = report.verdict(numbers) or ", ".join(f"{label} {value:.4g}" for label, value in first)
    out.say(f"step {step}: {held_out}")


def headline(run: Run, values: dict[str, float]) -> str:
    """The few numbers to watch: each player's likelihood or loss, and the speed."""
    split = run.data.split(run.config.evaluate.split)
    unit = "nats/char" if split.tokens == split.characters and run.data.spec.kind == "text" else "nats/token"
    shown = []
    for player in dict.fromkeys(run.program.objective.players):
        nll = values.get(f"{player}/nll")
        shown.append(f"{nll:.3f} {unit}" if nll is not None else f"{player} loss {values[f'{player}/loss']:.3f}")
    counted = "tokens" if isinstance(run.program.objective.model, SequenceModel) else "examples"
    return ", ".join([*shown, f"{values['tokens_per_second']:,.0f} {counted}/s"])


def train(config: ConfigDict, workdir: Path, stop: process.Stop) -> None:
    """Trains to config.steps, from wherever the workdir stands. Asked to stop, it saves and raises Stopped."""
    primary = jax.process_index() == 0
    with ExitStack() as stack:
        if primary:
            stack.enter_context(process.lock(workdir))
        changes = check_same_run(config, workdir / "config.json")
        out = stack.enter_context(closing(metrics.Writer(workdir, tensorboard=config.log.tensorboard, primary=primary)))
        for change in changes:
            out.say(f"changed since the last start: {change}")
        status = metrics.read_json(workdir / "status.json")
        if status.get("state") == "done" and status.get("step") == config.steps:
            return out.say(f"already done at step {config.steps}: {workdir / 'report.html'}")
        stuck = config.training.stuck_seconds if jax.process_count() > 1 else 0.0
        phases = stack.enter_context(Phases(workdir / "goodput.json" if primary else None, stuck))
        try:
            out.status("starting")
            run = build(config, workdir)
            process.same_everywhere({"data": run.data.summary["digest"]})
            if primary:
                metrics.write_json(workdir / "config.json", resolved(config))
            options = config.checkpoint
            checkpoints = stack.enter_context(
                Checkpoints(workdir / "checkpoints", keep_last=options.keep_last, keep_every=options.keep_every)
            )
            out.say(describe(run))
            with phases.during("restore"):
                state = start(run, checkpoints, out.say)
                phases.restored(int(state.step))
            step = loop(run, state, checkpoints, stop, out, phases)
            out.finish()
            phases.write()
            if primary:
                out.say(f"done: {report.write(workdir)}")
            out.status("done", step)
        except BaseException as error:
            out.status("stopped" if isinstance(error, Stopped) else "failed")
            raise


def describe(run: Run) -> str:
    """One line on what is about to be trained, on what."""
    axes = ", ".join(f"{axis}={size}" for axis, size in run.program.mesh.shape.items() if size > 1)
    found = run.data.summary
    parameters = f"{sharding.elements(run.program.state.params):,} parameters"
    parts = [
        f"{parameters} on {jax.device_count()} x {jax.devices()[0].device_kind} {axes}".rstrip(),
        f"{found['documents']:,} documents, {found['tokens']:,} tokens of {found['vocab']:,} symbols",
    ]
    for name, source in found["sources"].items():
        parts.append(f"{name} {source['share']:.2%} of the examples, {source['epochs']:.2f} epochs")
    return "; ".join(parts)


def look(config: ConfigDict, workdir: Path, mode: str) -> None:
    """Evaluates, or only samples from, the newest good checkpoint of a run; works beside the run while it trains."""
    check_same_run(config, workdir / "config.json")
    if not (workdir / "checkpoints").is_dir():
        raise CheckpointError(f"no checkpoint in {workdir}; train first, or choose another --workdir")
    if mode == "sample":
        config.evaluate.evaluators = ("samples",)
    run = build(config, workdir)
    state, step = restored(run)
    numbers, samples = measure(run, state, step)
    for value in samples:
        if isinstance(value, metrics.Texts):
            print("\n".join(value.texts))
        else:
            plots.image_grid(value.images, workdir / f"{mode}.png")
            print(workdir / f"{mode}.png")
    if mode == "evaluate":
        print("\n".join(f"{name} {value:.6g}" for name, value in numbers.items()))
        metrics.write_json(workdir / "evaluation.json", {"step": step, **numbers})


def loop(
    run: Run, state: TrainState, checkpoints: Checkpoints, stop: process.Stop, out: metrics.Writer, phases: Phases
) -> int:
    """Steps, saves and evaluations until the last step, which it returns."""
    config, first, saved = run.config, int(state.step), time.monotonic()
    make = lambda n: sharding.put(run.data.train.batch(n), run.program.mesh, config.data.batch_size)
    batches = data.prefetch(make, first, config.steps, config.data.prefetch)
    out.progress(first, config.steps)
    meter = metrics.Meter(run.program.objective.players[-1], sharding.elements(run.program.state.params["generator"]))
    alarms, step = health.Alarms(), first
    with closing(batches), stop.deferred(), metrics.Profile(run.workdir / "profile", config.log.profile) as profile:
        while True:
            stopping, last, logged = stop.at(step), step >= config.steps, step % config.log.every_steps == 0
            overdue = logged and process.agree(time.monotonic() - saved > config.checkpoint.every_seconds)
            if stopping or last or (step > first and (overdue or step % config.checkpoint.every_steps == 0)):
                save(run, state, step, checkpoints, phases)
                saved = time.monotonic()
            if not stopping and (last or step % config.evaluate.every_steps == 0):
                try:
                    with stop.deferred(False), phases.during("evaluate"):
                        evaluate(run, state, step, out)
                except Stopped:  # the evaluation is dropped, the state is not; the next start evaluates this step
                    save(run, state, step, checkpoints, phases)
                    stopping = True
                meter.reset()
            if stopping or last:
                with phases.during("save"):
                    checkpoints.wait()
            if stopping:
                raise Stopped(f"stopped by a signal at step {step}, which is saved; run the same command to go on")
            if last:
                return step
            profile.at(step)
            with phases.during("train"):
                step, batch = next(batches)
                state, sums = run.program.update(state, batch)
                meter.push(sums)
                step += 1
                out.advance()
                if step % config.log.every_steps == 0 or step == config.steps:
                    log(run, state, step, meter, alarms, out)
                    phases.write()


def log(run: Run, state: TrainState, step: int, meter: metrics.Meter, alarms: health.Alarms, out: metrics.Writer):
    """A line of metrics over the steps since the last, and whether all is well. Raises Diverged."""
    values = meter.read()
    raised, lines = alarms.read(values)
    out.scalars(step, values | raised)
    out.log(step, headline(run, values))
    for line in lines:
        out.say(f"step {step:,}: {line}")
    out.status("training", step)
    update.check_finite(state, run.config.training.max_skipped)
    meter.reset()


def save(run: Run, state: TrainState, step: int, checkpoints: Checkpoints, phases: Phases) -> None:
    """Starts saving in the background, unless the run diverged: a bad checkpoint never rotates out a good one."""
    with phases.during("train"):
        update.check_finite(state, run.config.training.max_skipped)  # waits for the last steps
    with phases.during("save"):
        checkpoints.save(step, state, {"steps": run.config.steps, "time": time.time()})
    phases.saved(step)


def restored(run: Run) -> tuple[TrainState, int]:
    """The newest good state of the workdir, changing nothing there. Raises CheckpointError where there is none."""
    with Checkpoints(run.workdir / "checkpoints", read_only=True) as checkpoints:
        if found := checkpoints.restore(run.program.state):
            return found[1], found[0]
    raise CheckpointError(f"no checkpoint in {run.workdir}; train first, or choose another --workdir")
