"""python -m launch --config configs/x.py[:variant] [--workdir DIR] [--config.key=value ...]
[--mode=train|evaluate|sample] [--dry_run] [--local_processes=N]

Exit codes: 0 done, 2 config error, 3 diverged, 4 data error, 5 no usable checkpoint, 6 workdir in use,
42 stopped by a signal with the state saved, or left by another process of the run: run the same command again.
"""

import difflib
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from gentrain import config as config_rules
from gentrain import process
from gentrain.data import corpus
from gentrain.errors import ConfigError, GentrainError
from launch import cluster

SUPERVISED = "GENTRAIN_SUPERVISED"  # set for the processes that `supervised` starts


def make_flags(argv: Sequence[str]) -> flags.FlagValues:
    """The launcher's flags, in a set of their own: importing this module has no side effects."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "configs/<name>.py, or configs/<name>.py:<variant>", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "where the run lives; default runs/<name>[-<variant>]", flag_values=values)
    flags.DEFINE_enum("mode", "train", ["train", "evaluate", "sample"], "what to do", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "check the config, print sizes, compute nothing", flag_values=values)
    flags.DEFINE_string(
        "coordinator",
        "",
        "host:port where the processes of one run meet; default: as the environment says (launch/cluster.py), or alone",
        flag_values=values,
    )
    flags.DEFINE_integer("processes", 1, "how many, with --coordinator", flag_values=values)
    flags.DEFINE_integer("process", 0, "which of them this is, with --coordinator", flag_values=values)
    flags.DEFINE_integer("local_processes", 0, "start so many on this machine, as one run", flag_values=values)
    return values


def parse(argv: Sequence[str]) -> tuple[flags.FlagValues, ConfigDict, Path]:
    """Flags, config and workdir; any mistake in them is a ConfigError of one line."""
    override = re.compile("--?(?:no)?config[.]([^=]*)")
    without = [argument for argument in argv if not override.match(argument)]
    try:
        values, plain = make_flags(argv), make_flags(without)
        plain(without)
        if plain.config is None:
            raise ConfigError("no config; try: python -m launch --config configs/quickstart.py")
        known = config_rules.flatten(plain.config)
        for key in (found[1] for found in map(override.match, argv) if found):
            if key not in known:
                nearest = difflib.get_close_matches(key, known, 1, 0) or [key]
                raise ConfigError(f"config has no key {key!r}; did you mean {nearest[0]!r}?")
        rest = values(list(argv))[1:]
        if rest:
            raise ConfigError(f"do not know what to do with {' '.join(rest)!r}; options start with --")
    except ConfigError:
        raise
    except Exception as error:  # whatever a config file or a flag's parser may raise
        raise ConfigError(one_line(error)) from None
    config_rules.validate(values.config)
    file, _, variant = config_flags.get_config_filename(values["config"]).partition(":")
    workdir = Path(values.workdir or Path("runs") / "-".join(filter(None, (Path(file).stem, variant))))
    return values, values.config, workdir.absolute()


def one_line(error: BaseException) -> str:
    """What went wrong at the bottom of a chain of errors and, in a config file, where."""
    while not isinstance(error, flags.Error) and (below := error.__cause__ or error.__context__):
        error = below
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "configs" in Path(frame.filename).parts]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {text}" if frames else text or type(error).__name__


def place(values: flags.FlagValues) -> cluster.Place | None:
    """Which of how many processes this is: by the flags, or else by the environment; None: alone."""
    if values.coordinator:
        return cluster.Place("flags", values.coordinator, values.processes, values.process)
    return cluster.place(os.environ)


def supervised(values: flags.FlagValues, argv: Sequence[str]) -> int:
    """Runs this command as child processes that know they are: one, or --local_processes of them."""
    commands = [[sys.executable, "-m", "launch", *argv[1:]]]
    if values.local_processes:
        meeting = f"--coordinator=127.0.0.1:{process.free_port()}"
        own = range(values.local_processes)
        commands = [[*commands[0], meeting, f"--processes={len(own)}", f"--process={index}"] for index in own]
    return process.supervise(commands, **{SUPERVISED: "1"})


def run(values: flags.FlagValues, config: ConfigDict, workdir: Path, stop: process.Stop) -> None:
    """Does what the flags say."""
    if values.dry_run:
        from launch.dry_run import dry_run

        return dry_run(config)
    # A restart compiles nothing that was compiled before.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(corpus.cache() / "compiled"))
    if found := place(values):
        process.join(found.coordinator, found.processes, found.process)
        process.same_everywhere(process.digests(config_rules.resolved(config)))

    from gentrain import sharding  # imports JAX

    # A mesh that does not fit the devices or the batch is told before the rest is imported and the workdir touched.
    sharding.make_mesh(config.mesh, config.data.batch_size, config.training.microbatches)
    if config.sweep:
        from launch.sweep import sweep

        sweep(config, workdir, values.mode, stop)
    else:
        from gentrain import train

        if values.mode == "train":
            train.train(config, workdir, stop)
        else:
            train.look(config, workdir, values.mode)


def main(argv: Sequence[str] | None = None) -> int:
    """The command as a function; returns the exit code."""
    argv = sys.argv if argv is None else argv
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # the source line helps nobody here
    alone = True
    try:
        values, config, workdir = parse(argv)
        alone = values.dry_run or (not values.local_processes and place(values) is None)
        if not alone and SUPERVISED not in os.environ:
            return supervised(values, argv)
        with process.Stop(alone) as stop:
            run(values, config, workdir, stop)
        return 0
    except (GentrainError, PermissionError) as error:
        return ended((not alone and process.lost_peer(error)) or error, alone)
    except BaseException as error:
        if alone:
            raise
        if lost := process.lost_peer(error):
            return ended(lost, alone)
        traceback.print_exc()
        return process.leave(1)


def ended(error: GentrainError | PermissionError, alone: bool) -> int:
    """Says in one line what ended the run; leaves with its exit code where others may wait in a collective."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    code = error.exit_code if isinstance(error, GentrainError) else ConfigError.exit_code
    return code if alone else process.leave(code)


if __name__ == "__main__":
    code = main()
    if code:  # after a failed save, threads of Orbax's would keep an ordinary exit waiting for ever
        process.leave(code)
