"""The run: build, restore, loop, evaluate, log, save. Read this first."""

import time
import warnings
from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gentrain import adapters, files, health, memory, players, plugins, sharding
from gentrain import program as programs
from gentrain.best import Best
from gentrain.datasets import build as building
from gentrain.datasets.prefetch import all_left_out, batch_number, prefetch
from gentrain.datasets.spec import Images, Texts
from gentrain.errors import CheckpointError, Corrupted, Diverged, ReportError, Stopped
from gentrain.evaluators.base import Evaluator
from gentrain.options.identity import check_same_run, resolved
from gentrain.program import Program
from gentrain.reporting import lines, report
from gentrain.reporting.alarms import Alarms
from gentrain.reporting.meter import Meter, Profile
from gentrain.reporting.writer import Writer
from gentrain.runtime import peers, provenance, replicas
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
    best: Best
    phases: Phases
    stop: Stop
    allow: Collection[str] = ()  # changes since the last start that are gone on with: see launch/cli.py
    frozen: dict[str, Any] = field(default_factory=dict)  # where the parameters of frozen players are from
    left_out: list[tuple[int, int]] = field(default_factory=list)  # ranges of batches that are not trained on
    replicas_differ: Callable | None = None  # compiled at the first check


def build(
    config: ConfigDict,
    workdir: Path,
    mesh: Mesh | None = None,
    allow: Collection[str] = (),
    data: building.Data | None = None,
) -> Run:
    """Everything a run needs but its state; on the config's mesh of all devices, and of the config's data, unless they
    are given."""
    mesh = mesh or sharding.make_mesh(config.mesh, config.data.batch_size, config.training.microbatches)
    memory.check_rows(config)
    data = data or building.build(config, workdir, sharding.local_rows(mesh, config.data.batch_size))
    program = programs.build(config, data.spec, mesh)
    memory.check(config, program, allow)
    evaluators = [
        plugins.load("evaluators", name).build(config, program.objective, data, program.mesh)
        for name in config.evaluate.evaluators
    ]
    return Run(config, workdir, program, data, evaluators)


def start(run: Run, session: Session) -> TrainState:
    """The state to go on from. The ways to start, in order; the first that applies is taken."""
    wanted, say = run.program.state, session.out.say
    session.left_out = [tuple(pair) for pair in run.config.data.skip_batches]
    # 1. This workdir's own newest good checkpoint: running the command again resumes, whatever else the config says.
    same_data = building.unchanged(run.data, session.allow, say)
    if found := session.checkpoints.restore(replace(wanted, frozen={}), same_data):
        step, state, meta = found
        say(f"resuming at step {step}")
        session.left_out = all_left_out(session.left_out, [tuple(pair) for pair in meta["left_out"]], step)
        frozen, session.frozen = players.restore_frozen(run.config, meta.get("frozen", {}), wanted.frozen)
        return replace(state, frozen=frozen)
    state = run.program.init()
    # 2. Parameters of other runs, by player; optimiser state, averages and step are new.
    params, session.frozen, said = players.init_from(run.config, run.program, run.data, state, run.workdir)
    for line in said:
        say(line)
    given = {player: own for player, own in params.items() if player not in state.frozen}
    learning = state.params | given
    frozen = {player: params[player] for player in state.frozen}
    # 3. Scratch, for all players that no other run gave.
    return replace(state, params=learning, frozen=frozen, ema=jax.tree.map(jnp.copy, learning) if state.ema else {})


def evaluated_params(state: TrainState) -> dict[str, Any]:
    """The parameters that are measured and sampled from: the averaged ones where there are any."""
    return adapters.join(state.frozen, state.ema or state.params)


def evaluation_key(seed: int, step: int) -> Array:
    """The key of all that is drawn in the evaluation of a step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), step)


def measure(run: Run, state: TrainState, step: int) -> tuple[dict[str, float], dict[str, Texts | Images]]:
    """Numbers and samples of all evaluators, by their names."""
    params, key = evaluated_params(state), evaluation_key(run.config.seed, step)
    measured = [item for evaluator in run.evaluators for item in evaluator(params, key).items()]
    numbers = {label: value for label, value in measured if not isinstance(value, Texts | Images)}
    return numbers, {label: value for label, value in measured if isinstance(value, Texts | Images)}


def evaluate(run: Run, state: TrainState, step: int, out: Writer) -> None:
    """Measures and writes down."""
    numbers, samples = measure(run, state, step)
    for label, value in samples.items():
        out.samples(step, value, label)
        if isinstance(value, Texts):
            out.say(f"step {step}: sampled {lines.glimpse(value)}")
    if numbers:
        out.scalars(step, numbers)
        out.say(f"step {step}: {report.summary_line(resolved(run.config), numbers)}")
    if out.primary:
        report.refresh({run.workdir.name: run.workdir}, run.workdir)


def train(
    config: ConfigDict, workdir: Path, stop: Stop, *, rewind: int | None = None, allow: Collection[str] = ()
) -> None:
    """Trains to config.steps, from wherever the workdir stands, or from its step `rewind`.

    Asked to stop, it saves and raises Stopped. allow: see launch/cli.py.
    """
    primary = jax.process_index() == 0
    with ExitStack() as stack:
        if primary:
            stack.enter_context(lock(workdir))
        changes = check_same_run(config, workdir / "config.json")
        out = stack.enter_context(closing(Writer(workdir, primary=primary)))
        for change in changes:
            out.say(f"changed since the last start: {change}")
        best = Best(config, workdir)
        if out.before.get("state") == "done" and rewind is None and (ended := best.ended(out.before["step"])):
            if primary and not report.is_written(workdir):
                report.write(workdir)
            return out.say(f"already done {ended}: {workdir / 'report.html'}")
        out.check_before()
        stuck_seconds = config.training.stuck_seconds * (jax.process_count() > 1)
        phases = stack.enter_context(Phases(workdir / "goodput.json" if primary else None, stuck_seconds))
        try:
            out.begin(config)
            run = build(config, workdir, allow=allow)
            peers.same_everywhere(run.data.summary["digests"])
            if primary:
                files.write_json(workdir / "config.json", resolved(config))
                provenance.write(workdir)
            keep = {name: config.checkpoint[name] for name in ("keep_last", "keep_every")}
            checkpoints = stack.enter_context(
                Checkpoints(workdir / "checkpoints", **keep, patience=config.training.max_skipped)
            )
            if rewind is not None and checkpoints.rewind(rewind):
                out.say(f"back to step {rewind}: later checkpoints are put aside as rewound-STEP")
            session = Session(out, checkpoints, best, phases, stop, allow)
            out.say(lines.describe(run.program.state, run.program.mesh, run.data.summary))
            with phases.during("restore"):
                state = start(run, session)
                best.pin(int(state.step), checkpoints)
                phases.restored(int(state.step))
                batch = partial(put_batch(run, session.left_out), int(state.step))
                run.program.objective.check_ready(adapters.join(state.frozen, state.params), batch, run.program.mesh)
            step = loop(run, state, session)
            out.finish()
            phases.write()
            if primary:
                out.say(f"done {best.ended(step)}: {report.write(workdir)}")
            out.status("done", step, reason=best.ended(step))
        except BaseException as error:
            out.ended((jax.process_count() > 1 and peers.lost_peer(error)) or error)
            if primary and not isinstance(error, ReportError):
                report.refresh({workdir.name: workdir}, workdir, live=False)
            raise


def loop(run: Run, state: TrainState, session: Session) -> int:
    """Steps, saves and evaluations until the last step, which it returns."""
    config, first, saved = run.config, int(state.step), time.monotonic()
    out, phases, stop = session.out, session.phases, session.stop
    batches = prefetch(put_batch(run, session.left_out), first, config.steps, config.data.prefetch)
    out.progress(first, config.steps)
    update = phases.timed(run.program.update, out.say)
    generator_size = sharding.elements(evaluated_params(run.program.state)["generator"])
    meter = Meter(run.program.objective.players[-1], generator_size)
    alarms, step, due = Alarms([*run.program.objective.alarms, health.FAR_ALARM]), first, False
    replica_steps = config.training.replica_check_steps * (run.program.mesh.size > 1)
    with closing(batches), stop.deferred(), Profile(run.workdir / "profile", config.log.profile) as profile:
        while True:
            stopping, last, logged = stop.at(step), step >= config.steps, step % config.log.every_steps == 0
            overdue = logged and peers.agree(time.monotonic() - saved > config.checkpoint.every_seconds)
            due = due or stopping or last or (step > first and (overdue or step % config.checkpoint.every_steps == 0))
            if due and save(run, state, step, session):
                due, saved = False, time.monotonic()
            if not stopping and (last or step % config.evaluate.every_steps == 0):
                try:
                    with stop.deferred(False), phases.during("evaluate"):
                        evaluate(run._replace(evaluators=[*map(stop.before, run.evaluators)]), state, step, out)
                    last |= session.best.after(step, session.checkpoints, partial(save, run, state, step, session))
                except Stopped:  # the evaluation is dropped, the state is not; the next start evaluates this step
                    due = not save(run, state, step, session)
                    stopping = True
                meter.reset()
            if stopping or last:
                with phases.during("save"):
                    session.checkpoints.wait()
            if stopping:
                saved_as = "its last updates were not finite, so it is not saved" if due else "which is saved"
                raise Stopped(f"stopped by a signal at step {step}, {saved_as}; run the same command to go on")
            if last:
                return step
            profile.at(step)
            with phases.during("train"):
                step, batch = next(batches)
                state, sums = update(state, batch)
                meter.push(sums)
                step += 1
                out.advance()
                if replica_steps and step % replica_steps == 0:
                    check_replicas(run, state, step, session)
                if step % config.log.every_steps == 0 or step == config.steps:
                    log(run, step, meter, alarms, out)
                    may_save(run, state, step, session)
                    phases.write()


def put_batch(run: Run, left_out: list[tuple[int, int]]) -> Callable[[int], dict[str, Array]]:
    """step -> its batch, on the devices."""

    def put(step: int) -> dict[str, Array]:
        batch = run.data.train.batch(batch_number(step, left_out))
        return sharding.put(batch, run.program.mesh, run.config.data.batch_size)

    return put


def log(run: Run, step: int, meter: Meter, alarms: Alarms, out: Writer) -> None:
    """A line of metrics over the steps since the last, and whether all is well."""
    values = meter.read()
    raised, said = alarms.read(values)
    out.scalars(step, values | raised)
    out.log(step, lines.headline(run.config, run.program.objective, run.data, values))
    for line in said:
        out.say(f"step {step:,}: {line}")
    out.status("training", step)
    meter.reset()


def may_save(run: Run, state: TrainState, step: int, session: Session) -> bool:
    """Whether the state is sound enough to be saved. Raises Diverged, and puts the checkpoints since then aside."""
    patience, checkpoints = run.config.training.max_skipped, session.checkpoints
    with session.phases.during("train"):
        numbers = jax.device_get(state.health)  # waits for the last steps
    try:
        sound = health.check(step, numbers, patience, last=step >= run.config.steps)
    except Diverged as error:
        checkpoints.put_aside(error.since)
        steps = checkpoints.steps()
        raise Diverged(f"{error}: it {f'goes on from step {steps[-1]}' if steps else 'begins anew'}") from None
    checkpoints.trust(step - int(numbers.sound), step - patience)
    return sound


def check_replicas(run: Run, state: TrainState, step: int, session: Session) -> None:
    """Raises Corrupted where copies of an array differ, and puts aside what was saved since the last check."""
    if session.replicas_differ is None:
        session.replicas_differ = replicas.make_check(run.program.state, run.program.mesh)
    if different := replicas.names_of(state, jax.device_get(session.replicas_differ(state))):
        since = max(step - run.config.training.replica_check_steps, 0)
        session.checkpoints.put_aside(since + 1)
        raise Corrupted(replicas.describe(different, step, since))


def save(run: Run, state: TrainState, step: int, session: Session) -> bool:
    """Starts saving in the background where the state is sound, so that no bad checkpoint takes a good one's place."""
    if not may_save(run, state, step, session):
        return False
    meta = {"steps": run.config.steps, "time": time.time(), "frozen": session.frozen, "left_out": session.left_out}
    meta["data"] = run.data.summary["digests"]
    with session.phases.during("save"):
        session.checkpoints.save(step, replace(state, frozen={}), meta)
    session.phases.saved(step)
    return True


def restored(run: Run, allow: Collection[str] = (), step: int | None = None) -> tuple[TrainState, int, dict[str, Any]]:
    """The newest good state of the workdir, or that of a step, its step and meta; nothing there is changed.

    Raises CheckpointError where there is none.
    """
    wanted, same_data = run.program.state, building.unchanged(run.data, allow, warnings.warn)
    with Checkpoints(run.workdir / "checkpoints", read_only=True) as checkpoints:
        if found := checkpoints.restore(replace(wanted, frozen={}), same_data, step):
            step, state, meta = found
            frozen, _ = players.restore_frozen(run.config, meta.get("frozen", {}), wanted.frozen)
            return replace(state, frozen=frozen), step, meta
    raise CheckpointError(f"no checkpoint in {run.workdir}; train first, or choose another --workdir")
