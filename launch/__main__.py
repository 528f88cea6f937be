"""python -m launch --config configs/x.py[:variant] [--workdir DIR] [--config.key=value ...]

`python -m launch --help` says the rest; launch/cli.py reads the command line.
"""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from absl import flags

from gentrain import console
from gentrain.datasets import store
from gentrain.errors import GentrainError, explain
from gentrain.options import check, identity
from gentrain.published import families
from gentrain.runtime import peers, signals, supervise
from launch import cli, cluster, huge_pages

SUPERVISED = "GENTRAIN_SUPERVISED"  # set for the processes that `supervised` starts


def place(values: flags.FlagValues) -> cluster.Place | None:
    """Which of how many processes this is: by the flags, or else by the environment; None: alone."""
    if values.coordinator:
        return cluster.Place("flags", values.coordinator, values.processes, values.process)
    return cluster.place(os.environ)


def supervised(values: flags.FlagValues, argv: Sequence[str]) -> int:
    """Runs this command as child processes that know they are: one, or --local_processes of them."""
    commands = [[sys.executable, "-m", "launch", *argv[1:]]]
    if values.local_processes:
        meeting = f"--coordinator=127.0.0.1:{peers.free_port()}"
        count = values.local_processes
        commands = [[*commands[0], meeting, f"--processes={count}", f"--process={index}"] for index in range(count)]
    return supervise.supervise(commands, **{SUPERVISED: "1"})


def run(command: cli.Command, stop: signals.Stop) -> None:
    """Does what the command line says."""
    values, config, workdir, _, allow = command
    if values.dry_run:
        from launch.dry_run import dry_run

        return dry_run(config)
    # A restart compiles nothing that was compiled before.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(store.cache() / "compiled"))
    if where := place(values):
        peers.join(where.coordinator, where.processes, where.process)
        peers.same_everywhere(peers.run_digests(identity.resolved(config)))

    from gentrain import sharding  # imports JAX

    # A mesh that does not fit the devices or the batch is refused before the rest is imported and the workdir touched.
    for one in check.variants(config).values() if config.sweep else [config]:
        sharding.make_mesh(one.mesh, one.data.batch_size, one.training.microbatches)
    if values.replay:
        from gentrain.replay import replay

        replay(config, workdir, *cli.numbers(values.replay, "replay"))
    elif config.sweep:
        from launch.sweep import sweep

        sweep(config, workdir, values.mode, stop, allow, values.step)
    else:
        from gentrain import train
        from gentrain.look import look

        texts = values.prompt or values.prompts or values.out or families.is_published(values.workdir)
        if values.mode == "train":
            train.train(config, workdir, stop, rewind=values.rewind, allow=allow)
        elif texts:
            from launch.sample import sample

            sample(values, config, values.workdir or str(workdir), allow)
        else:
            look(config, workdir, values.mode, allow, values.step)


def main(argv: Sequence[str] | None = None) -> int:
    """The command as a function; returns the exit code."""
    argv = sys.argv if argv is None else argv
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # the source line helps nobody here
    if cli.asks_for_help(argv):
        print(cli.USAGE, end="")
        return 0
    alone = True
    try:
        command = cli.parse(argv)
        values = command.flags
        alone = values.dry_run or (not values.local_processes and place(values) is None)
        if not alone and SUPERVISED not in os.environ:
            return supervised(values, argv)
        for note in command.notes:
            cli.say(note)
        with signals.Stop(alone) as stop:
            run(command, stop)
        return 0
    except BrokenPipeError:  # whoever read the output has seen enough
        console.silence(sys.stdout)
        return 0
    except BaseException as error:
        known = (not alone and peers.lost_peer(error)) or explain(error)
        if known:
            return ended(known, alone)
        if alone:
            raise
        with console.unless_gone(sys.stderr):
            traceback.print_exc()
        return signals.leave(1)
    finally:
        console.flush()


def ended(error: GentrainError, alone: bool) -> int:
    """Says in one line what ended the run; leaves with its exit code where others may wait in a collective."""
    cli.say(f"{type(error).__name__}: {error}")
    return error.exit_code if alone else signals.leave(error.exit_code)


def command() -> int:
    """The console command `gentrain`."""
    huge_pages.start_with_them()
    code = main()
    if code:  # after a failed save, threads of Orbax's would keep an ordinary exit waiting for ever
        signals.leave(code)
    return code


if __name__ == "__main__":
    command()
