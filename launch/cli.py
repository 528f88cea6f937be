"""The launcher's command line: flags, a config file and overrides of its keys; a mistake in them is one clear line."""

import ast
import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import base
from gentrain import console
from gentrain.errors import ConfigError
from gentrain.options import check, tree
from gentrain.options.fit import fit
from gentrain.published import families

OVERRIDE = re.compile(r"--?(?:no)?config[.]([^=]*)(?:=(.*))?", re.DOTALL)
SAVED = Path(__file__).with_name("saved_config.py")
USAGE = """python -m launch --config configs/NAME.py[:VARIANT] [--workdir DIR] [--config.KEY=VALUE …]
    [--mode=train|evaluate|sample] [--step=best|last|N] [--split=NAME] [--prompt=TEXT …] [--prompts=FILE] [--count=N]
    [--out=FILE] [--allow=NAMES] [--dry_run] [--local_processes=N] [--rewind=STEP] [--skip_batches=A:B]

Trains what a config file says, or resumes it: the same command again goes on from the last checkpoint. The workdir of a
run is enough to resume, evaluate or sample it: python -m launch --workdir DIR --mode=sample.

  --config          configs/NAME.py, or configs/NAME.py:VARIANT; `python -m launch.list configs` lists them
  --config.KEY      another value of an option; `python -m launch.list keys [SECTION]` lists them
  --workdir         where the run lives; by default runs/NAME[-VARIANT]. The folder of a sweep's variant is that variant
                    alone: to resume, sample or evaluate it. A published model, as hf:DIR, can be sampled from
  --mode            train; evaluate or sample from a checkpoint; evaluations/ keeps every evaluation
  --step            with --mode=evaluate or sample: the checkpoint of this step, 'last', the newest, which it is by
                    default, or 'best', by the run's evaluate.keep_best or the likelihood of its held-out split
  --split           with --mode=evaluate: train, valid or test; another name of --config.evaluate.split
  --prompt          with --mode=sample: a text to go on with, which may be given several times; a single one is written
                    while it is drawn
  --prompts         the same from a file: one a line or, where its name ends in .jsonl, each line's "prompt"
  --count           how many samples, or continuations of each prompt; another name of --config.sample.count
  --out             a file that the texts are written to, one JSON object a line
  --rewind          goes on from the checkpoint of this step, and puts later ones aside; once, however often it is run
  --skip_batches    A:B leaves the batches A to B - 1 out, now and whenever the run goes on
  --replay          A:B does the steps A to B - 1 once more from the checkpoint of A, prints their losses and compares
                    with the checkpoint of B, if there is one; the run stays as it is
  --allow           what to go on with that would end the command with exit code 2, by name, separated by commas;
                    data: the data or the tokenizer changed since the checkpoint; memory: a step
                    takes more than there is
  --dry_run         checks the config and prints sizes; computes nothing
  --local_processes starts so many processes on this machine, as one run
  --coordinator, --processes, --process
                    host:port where the processes of a run meet, how many they are, and which of them this is; by
                    default as the environment says (launch/README.md), or alone

`python -m launch.report RUN [RUN ...]` compares runs, made together or apart.
`python -m launch.list [configs|objectives|models|data|evaluators|figures|keys [SECTION]]` says what there is.

Exit codes: 0 done, 1 a fault of the program or of a report after training, 2 config error, 3 diverged, 4 data error,
5 no usable checkpoint or a full disk, 6 workdir in use, 42 stopped by a signal with the state saved, or left by another
process of the run: run the same command again. A sweep ends with the code of the first variant that failed.
"""


ALLOWED = ("data", "memory")  # what --allow may name


class Command(NamedTuple):
    """What a command line asks for."""

    flags: flags.FlagValues
    config: ConfigDict
    workdir: Path
    notes: list[str]  # what was changed to make the config fit, to be said
    allow: tuple[str, ...]  # names of ALLOWED


def make_flags(argv: Sequence[str]) -> flags.FlagValues:
    """The launcher's flags, in a set of their own: importing this module has no side effects."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "a config file", flag_values=values, sys_argv=list(argv))
    flags.DEFINE_string("workdir", None, "where the run lives", flag_values=values)
    flags.DEFINE_enum("mode", "train", ["train", "evaluate", "sample"], "what to do", flag_values=values)
    flags.DEFINE_string("step", None, "which checkpoint: best, last or its step", flag_values=values)
    flags.DEFINE_enum("split", None, ["train", "valid", "test"], "what is measured", flag_values=values)
    flags.DEFINE_multi_string("prompt", [], "a text to go on with", flag_values=values)
    flags.DEFINE_string("prompts", None, "a file of them", flag_values=values)
    flags.DEFINE_integer("count", None, "how many samples", lower_bound=1, flag_values=values)
    flags.DEFINE_string("out", None, "where the texts go", flag_values=values)
    flags.DEFINE_list("allow", [], "changes to go on with", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "check the config, print sizes", flag_values=values)
    flags.DEFINE_integer("rewind", None, "go on from this step", lower_bound=0, flag_values=values)
    flags.DEFINE_string("replay", "", "A:B, steps to do once more", flag_values=values)
    flags.DEFINE_string("skip_batches", "", "A:B, batches to leave out", flag_values=values)
    flags.DEFINE_string("coordinator", "", "host:port where the processes of one run meet", flag_values=values)
    flags.DEFINE_integer("processes", 1, "how many, with --coordinator", flag_values=values)
    flags.DEFINE_integer("process", 0, "which of them this is, with --coordinator", flag_values=values)
    flags.DEFINE_integer("local_processes", 0, "start so many on this machine", flag_values=values)
    return values


def asks_for_help(argv: Sequence[str]) -> bool:
    return any(argument in ("-h", "--help", "--helpfull", "--helpshort", "help") for argument in argv[1:])


def parse(argv: Sequence[str]) -> Command:
    """Flags, config and workdir. Raises ConfigError for any mistake in them."""
    argv = with_config(argv)
    overrides = [found for found in map(OVERRIDE.match, argv) if found]
    plain_argv = [argument for argument in argv if not OVERRIDE.match(argument)]
    try:
        values, plain = make_flags(argv), make_flags(plain_argv)
        check_file(plain_argv)
        plain(plain_argv)
        if plain.config is None:
            no_run = f", and {plain.workdir} holds no run" if plain.workdir else ""
            raise ConfigError(f"no config{no_run}; try: python -m launch --config configs/quickstart.py")
        known = tree.flatten(plain.config)
        for found in overrides:
            if found[1] not in known:
                raise ConfigError(check.unknown_key(found[1], known))
        rest = values(list(argv))[1:]
    except ConfigError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise ConfigError(unknown_flag(error.flagname, plain_argv)) from None
    except flags.IllegalFlagValueError as error:
        raise ConfigError(one_line(error) + several_values(overrides)) from None
    except Exception as error:  # whatever a config file or a flag's parser may raise
        raise ConfigError(one_line(error) + several_values(overrides)) from None
    if rest:
        raise ConfigError(f"do not know what to do with {' '.join(rest)!r}; options start with --")
    if unknown := [name for name in values.allow if name not in ALLOWED]:
        raise ConfigError(f"--allow={unknown[0]}: expected names of {', '.join(ALLOWED)}, separated by commas")
    config = values.config
    if values.skip_batches:
        config.data.skip_batches += (numbers(values.skip_batches, "skip_batches"),)
    check_looking(values)
    if values.split:
        config.evaluate.split = values.split
    if values.mode == "evaluate":
        forget_unread(config, [found[1] for found in overrides])
    if values.count:
        config.sample.count = values.count
    elif values.prompt or values.prompts:
        config.sample.count = 1
    file, _, variant = config_flags.get_config_filename(values["config"]).partition(":")
    given = keys_set(config, plain.config, [found[1] for found in overrides])
    notes = [] if file == str(SAVED) else fit(config, given)  # a saved config has been made to fit
    notes += [note] if (note := check.shorten_warmup(config)) else []
    check.validate(config, given)
    workdir = Path(values.workdir or Path("runs") / "-".join(filter(None, (Path(file).stem, variant)))).absolute()
    one_of_sweep = check.variants(config).get(workdir.name)  # the folder of a variant is that variant
    config = config if one_of_sweep is None else one_of_sweep
    if values.replay and (config.sweep or numbers(values.replay, "replay")[1] > config.steps):
        raise ConfigError("--replay does steps of one run once more: expected no sweep, and steps that it has")
    if values.rewind is not None and (config.sweep or values.mode != "train" or values.dry_run):
        raise ConfigError("--rewind puts a run back that is then trained: expected one run, and --mode=train")
    return Command(values, config, workdir, notes, tuple(values.allow))


def check_looking(values: flags.FlagValues) -> None:
    """Raises ConfigError for flags of evaluation and sampling with another mode, and for a published model that has no
    run."""
    if values.split and values.mode != "evaluate":
        raise ConfigError("--split is read with --mode=evaluate; a run trains with --config.evaluate.split")
    if values.step and values.mode == "train":
        raise ConfigError("--step is read with --mode=evaluate and --mode=sample; --rewind=STEP trains on from a step")
    if values.step and not (values.step in ("best", "last") or values.step.isdecimal()):
        raise ConfigError(f"--step={values.step}: expected best, last, or the step of a checkpoint")
    for flag in ("prompt", "prompts", "count", "out"):
        if values[flag].value and values.mode != "sample":
            raise ConfigError(f"--{flag} is read with --mode=sample")
    if values.prompts and not Path(values.prompts).is_file():
        raise ConfigError(f"--prompts={values.prompts}: there is no such file")
    if families.is_published(values.workdir) and values.mode != "sample":
        raise ConfigError(f"--workdir={values.workdir} is no run: expected --mode=sample, or --config.init_from")
    if families.is_published(values.workdir) and values.step:
        raise ConfigError(f"--workdir={values.workdir} is no run, and has no --step")


def forget_unread(config: ConfigDict, flags: Sequence[str]) -> None:
    """Where flags choose other evaluators, the options that only those of the run read go back to their defaults."""
    if "evaluate.evaluators" not in flags:
        return
    kept, default = tree.Run(config).reads() | set(flags), tree.flatten(base.get_config())
    unread = {key: default[key] for key in default if key.startswith("evaluate.") and key not in kept}
    config.update_from_flattened_dict(unread)


def numbers(text: str, flag: str) -> tuple[int, int]:
    """'200:300' -> (200, 300). Raises ConfigError."""
    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise ConfigError(f"--{flag}={text}: expected the first number and the one after the last, as 200:300")
    return int(first), int(end)


def keys_set(config: ConfigDict, file_config: ConfigDict, keys: Sequence[str]) -> list[str]:
    """The keys that flags set; not those that a flag puts back to the default which the file had left."""
    default, of_file, values = (tree.flatten(one) for one in (base.get_config(), file_config, config))
    return [key for key in keys if of_file[key] == default[key] or values[key] != default[key]]


def value_of(flag: str, argv: Sequence[str]) -> str:
    """What follows --flag, or an empty string."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if equals else following
    return ""


def with_config(argv: Sequence[str]) -> list[str]:
    """The command line; where it has no --config, with that of the run in its --workdir, if there is one."""
    workdir = value_of("workdir", argv)
    run = workdir and (families.is_published(workdir) or (Path(workdir) / "config.json").exists())
    return [argv[0], f"--config={SAVED}:{workdir}", *argv[1:]] if run and not value_of("config", argv) else list(argv)


def check_file(argv: Sequence[str]) -> None:
    """Raises ConfigError for a config file that is not there, listing the nearest."""
    argument = value_of("config", argv)
    file, _, variant = argument.partition(":")
    if not argument:
        return
    if Path(file).is_file():
        if variant and not takes_variant(Path(file)):
            raise ConfigError(f"{file} has no variants, and {variant!r} is asked for")
        return
    there = sorted(str(path) for path in config_files())
    stem = Path(file).stem
    near = [path for path in there if Path(path).stem == stem] or difflib.get_close_matches(
        f"configs/{stem}.py", there, 3, 0.4
    )
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `python -m launch.list configs` lists those there are"
    raise ConfigError(f"there is no config file {file!r}{hint}")


def takes_variant(file: Path) -> bool:
    """Whether the file's get_config has a parameter; the file is read, not run."""
    try:
        tree = ast.parse(file.read_text())
    except (SyntaxError, UnicodeDecodeError):
        return True  # running it tells the fault, and where
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "get_config"]
    return not functions or bool(functions[0].args.args or functions[0].args.vararg)


def config_files() -> Iterator[Path]:
    """The config files that come with gentrain, as paths from here where they lie below."""
    root = Path(__file__).parents[1]
    for path in sorted((root / "configs").glob("*.py")):
        if path.stem not in ("base", "__init__"):
            yield Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


def unknown_flag(name: str, argv: Sequence[str]) -> str:
    """What to say of a flag that there is not: a key without --config., or the nearest flag."""
    plain = make_flags([])
    try:
        config_only = [argv[0], f"--config={value_of('config', argv)}"] if value_of("config", argv) else list(argv[:1])
        (plain := make_flags(config_only))(config_only)
        known = tree.flatten(plain.config) if plain.config else {}
    except Exception:  # the config file has a fault of its own, which is not what is asked here
        known = {}
    exact = [key for key in known if key == name or key.rsplit(".")[-1] == name]
    if exact:
        return f"there is no flag --{name}; did you mean --config.{exact[0]}=…?"
    own = [*make_flags([]), "help"]
    near = difflib.get_close_matches(name, own, 1, 0.5)
    near_keys = difflib.get_close_matches(name, known, 1, 0.6)
    if near:
        return f"there is no flag --{name}; did you mean --{near[0]}?"
    if near_keys:
        return f"there is no flag --{name}; did you mean --config.{near_keys[0]}=…?"
    return f"there is no flag --{name}; there are: --{', --'.join(own)}, and --config.KEY=VALUE"


def several_values(overrides: Sequence[re.Match]) -> str:
    """A hint where one of the overrides looks like a list of values."""
    for found in overrides:
        value = found[2] or ""
        if "," in value and not value.strip().startswith(("(", "[", "{", "'", '"')):
            first, *rest = value.split(",")
            variants = ", ".join(f"{{'{found[1]}': {one}}}" for one in (first, *rest))
            return f'; for a run with each value: --config.sweep="({variants})"'
    return ""


def one_line(error: BaseException) -> str:
    """What went wrong at the bottom of a chain of errors and, in a config file, where."""
    while not isinstance(error, flags.Error) and (below := error.__cause__ or error.__context__):
        error = below
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "configs" in Path(frame.filename).parts]
    if isinstance(error, ConfigError):
        return text
    return f"{frames[-1].filename}:{frames[-1].lineno}: {text}" if frames else text or type(error).__name__


def say(text: str) -> None:
    """A line for the person who started the command."""
    console.say(text, sys.stderr)
