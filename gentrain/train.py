"""The run: build, restore, loop, evaluate, log, save. Read this first."""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import files, players, plugins, sharding, update
from gentrain import program as programs
from gentrain.datasets import build as building
from gentrain.datasets.prefetch import prefetch
from gentrain.datasets.spec import Images, Texts
from gentrain.errors import CheckpointError, Stopped
from gentrain.evaluators.base import Evaluator
from gentrain.models.base import SequenceModel
from gentrain.options.identity import check_same_run, resolved
from gentrain.program import Program
from gentrain.reporting import plots, report
from gentrain.reporting.alarms import Alarms
from gentrain.reporting.meter import Meter, Profile
from gentrain.reporting.writer import Writer
from gentrain.runtime import peers, provenance
from gentrain.runtime.checkpoint import Checkpoints
from gentrain.runtime.goodput import Phases
from gentrain.runtime.lock import lock
from gentrain.runtime.signals import Stop
from gentrain.update import TrainState


class Run(NamedTuple):
    """A program, its data and what is measured."""

    config: ConfigDict
    workdir: Path
    program: Program
    data: building.Data
    evaluators: list[Evaluator]


@dataclass
class Session:
    """What goes along with a run from its start to its end: where it tells, saves and counts its time."""

    out: Writer
    checkpoints: Checkpoints
    phases: Phases
    stop: Stop
    frozen: dict[str, Any] = field(default_factory=dict)  # where the parameters of frozen players are from


def build(config: ConfigDict, workdir: Path, mesh: Mesh | None = None) -> Run:
    """Everything a run needs but its state; on the config's mesh of all devices, unless one is given."""
    mesh = mesh or sharding.make_mesh(config.mesh, config.data.batch_size, config.training.microbatches)
    data = building.build(config, workdir, sharding.local_rows(mesh, config.data.batch_size))
    program = programs.build(config, data.spec, mesh)
    evaluators = [
        plugins.load("evaluators", name).build(config, program.objective, data, program.mesh)
        for name in config.evaluate.evaluators
    ]
    return Run(config, workdir, program, data, evaluators)


def start(run: Run, session: Session) -> TrainState:
    """The state to go on from. The ways to start, in order; the first that applies is taken."""
    wanted, say = run.program.state, session.out.say
    # 1. This workdir's own newest good checkpoint: running the command again resumes, whatever else the config says.
    if found := session.checkpoints.restore(replace(wanted, frozen={})):
        step, state, meta = found
        say(f"resuming at step {step}")
        frozen, session.frozen = players.restore_frozen(meta.get("frozen", {}), wanted.frozen)
        return replace(state, frozen=frozen)
    state = run.program.init()
    # 2. Parameters of other runs, by player; optimiser state, averages and step are new.
    params, session.frozen, lines = players.init_from(run.config.init_from, wanted, run.program.objective)
    for line in lines:
        say(line)
    learning = state.params | {player: own for player, own in params.items() if player in state.params}
    frozen = {player: params[player] for player in state.frozen}
    # 3. Scratch, for all players that no other run gave.
    return replace(state, params=learning, frozen=frozen, ema=jax.tree.map(jnp.copy, learning) if state.ema else {})


def evaluated_params(state: TrainState) -> dict[str, Any]:
    """The parameters that are measured and sampled from: the averaged ones where there are any."""
    return (state.ema or state.params) | state.frozen


def evaluation_key(seed: int, step: int) -> Array:
    """The key of all that is drawn in the evaluation of a step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), step)


def measure(run: Run, state: TrainState, step: int) -> tuple[dict[str, float], list[Texts | Images]]:
    """Numbers and samples of all evaluators."""
    params, key = evaluated_params(state), evaluation_key(run.config.seed, step)
    numbers: dict[str, float] = {}
    samples: list[Texts | Images] = []
    for evaluator in run.evaluators:
        for label, value in evaluator(params, key).items():
            if isinstance(value, Texts | Images):
                samples.append(value)
            else:
                numbers[label] = value
    return numbers, samples


def evaluate(run: Run, state: TrainState, step: int, out: Writer) -> None:
    """Measures and writes down."""
    numbers, samples = measure(run, state, step)
    for value in samples:
        out.samples(step, value)
        if isinstance(value, Texts):
            first_lines = [text.strip().splitlines()[0][:60] for text in value.texts if text.strip()]
            out.say(f"step {step}: sampled {' | '.join(first_lines[:8])}")
    if numbers:
        out.scalars(step, numbers)
        out.say(f"step {step}: {summary_line(run.config, numbers)}")


def summary_line(config: ConfigDict, numbers: dict[str, float]) -> str:
    """An evaluation in a line: the evaluators' verdicts, or the first numbers that have a better direction."""
    if said := report.verdict(numbers, list(config.evaluate.evaluators)):
        return said
    metrics = report.evaluator_metrics(resolved(config))
    directed = [name for name in numbers if report.better_direction(name, metrics)]
    return ", ".join(f"{name} {numbers[name]:.4g}" for name in (directed or list(numbers))[:6])


def headline(run: Run, values: dict[str, float]) -> str:
    """The few numbers to watch: each player's likelihood or loss, and the speed."""
    split = run.data.split(run.config.evaluate.split)
    unit = run.data.spec.unit(split.tokens / split.characters)
    shown = []
    for player in dict.fromkeys(run.program.objective.players):
        nll = values.get(f"{player}/nll")
        shown.append(f"{nll:.3f} {unit}" if nll is not None else f"{player} loss {values[f'{player}/loss']:.3f}")
    counted = "tokens" if isinstance(run.program.objective.model, SequenceModel) else "examples"
    return ", ".join([*shown, f"{values['tokens_per_second']:,.0f} {counted}/s"])


def train(config: ConfigDict, workdir: Path, stop: Stop) -> None:
    """Trains to config.steps, from wherever the workdir stands. Asked to stop, it saves and raises Stopped."""
    primary = jax.process_index() == 0
    with ExitStack() as stack:
        if primary:
            stack.enter_context(lock(workdir))
        changes = check_same_run(config, workdir / "config.json")
        out = stack.enter_context(closing(Writer(workdir, tensorboard=config.log.tensorboard, primary=primary)))
        for change in changes:
            out.say(f"changed since the last start: {change}")
        status = files.read_json(workdir / "status.json")
        if status.get("state") == "done" and status.get("step") == config.steps:
            return out.say(f"already done at step {config.steps}: {workdir / 'report.html'}")
        stuck_seconds = config.training.stuck_seconds * (jax.process_count() > 1)
        phases = stack.enter_context(Phases(workdir / "goodput.json" if primary else None, stuck_seconds))
        try:
            out.status("starting")
            run = build(config, workdir)
            peers.same_everywhere({"data": run.data.summary["digest"]})
            if primary:
                files.write_json(workdir / "config.json", resolved(config))
                provenance.write(workdir)
            options = config.checkpoint
            checkpoints = stack.enter_context(
                Checkpoints(workdir / "checkpoints", keep_last=options.keep_last, keep_every=options.keep_every)
            )
            session = Session(out, checkpoints, phases, stop)
            out.say(describe(run))
            with phases.during("restore"):
                state = start(run, session)
                phases.restored(int(state.step))
            step = loop(run, state, session)
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
    summary = run.data.summary
    state = run.program.state
    parameters = f"{sharding.elements((state.params, state.frozen)):,} parameters"
    if state.frozen:
        parameters += f" ({sharding.elements(state.frozen):,} frozen)"
    parts = [
        f"{parameters} on {jax.device_count()} x {jax.devices()[0].device_kind} {axes}".rstrip(),
        f"{summary['documents']:,} documents, {summary['tokens']:,} tokens of {summary['vocab']:,} symbols",
    ]
    for name, source in summary["sources"].items():
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
        if isinstance(value, Texts):
            print("\n".join(value.texts))
        else:
            plots.image_grid(value.images, workdir / f"{mode}.png")
            print(workdir / f"{mode}.png")
    if mode == "evaluate":
        print("\n".join(f"{name} {value:.6g}" for name, value in numbers.items()))
        files.write_json(workdir / "evaluation.json", {"step": step, **numbers})


def loop(run: Run, state: TrainState, session: Session) -> int:
    """Steps, saves and evaluations until the last step, which it returns."""
    config, first, saved = run.config, int(state.step), time.monotonic()
    out, phases, stop = session.out, session.phases, session.stop
    batches = prefetch(put_batch(run), first, config.steps, config.data.prefetch)
    out.progress(first, config.steps)
    generator_size = sharding.elements(run.program.state.params["generator"])
    meter = Meter(run.program.objective.players[-1], generator_size)
    alarms, step = Alarms(run.program.objective.alarms), first
    with closing(batches), stop.deferred(), Profile(run.workdir / "profile", config.log.profile) as profile:
        while True:
            stopping, last, logged = stop.at(step), step >= config.steps, step % config.log.every_steps == 0
            overdue = logged and peers.agree(time.monotonic() - saved > config.checkpoint.every_seconds)
            if stopping or last or (step > first and (overdue or step % config.checkpoint.every_steps == 0)):
                save(run, state, step, session)
                saved = time.monotonic()
            if not stopping and (last or step % config.evaluate.every_steps == 0):
                try:
                    with stop.deferred(False), phases.during("evaluate"):
                        evaluate(run, state, step, out)
                except Stopped:  # the evaluation is dropped, the state is not; the next start evaluates this step
                    save(run, state, step, session)
                    stopping = True
                meter.reset()
            if stopping or last:
                with phases.during("save"):
                    session.checkpoints.wait()
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


def put_batch(run: Run) -> Callable[[int], dict[str, Array]]:
    """step -> its batch, on the devices."""
    return lambda step: sharding.put(run.data.train.batch(step), run.program.mesh, run.config.data.batch_size)


def log(run: Run, state: TrainState, step: int, meter: Meter, alarms: Alarms, out: Writer) -> None:
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


def save(run: Run, state: TrainState, step: int, session: Session) -> None:
    """Starts saving in the background, unless the run diverged: a bad checkpoint never rotates out a good one."""
    with session.phases.during("train"):
        update.check_finite(state, run.config.training.max_skipped)  # waits for the last steps
    meta = {"steps": run.config.steps, "time": time.time(), "frozen": session.frozen}
    with session.phases.during("save"):
        session.checkpoints.save(step, replace(state, frozen={}), meta)
    session.phases.saved(step)


def restored(run: Run) -> tuple[TrainState, int]:
    """The newest good state of the workdir, changing nothing there. Raises CheckpointError where there is none."""
    wanted = run.program.state
    with Checkpoints(run.workdir / "checkpoints", read_only=True) as checkpoints:
        if found := checkpoints.restore(replace(wanted, frozen={})):
            step, state, meta = found
            frozen, _ = players.restore_frozen(meta.get("frozen", {}), wanted.frozen)
            return replace(state, frozen=frozen), step
    raise CheckpointError(f"no checkpoint in {run.workdir}; train first, or choose another --workdir")
