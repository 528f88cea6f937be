"""What a run leaves in its workdir while it goes on: metrics.jsonl, what loggers write, status.json and samples."""

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from gentrain import console, files
from gentrain.datasets.spec import Images, Texts
from gentrain.errors import CheckpointError, explain, first_line
from gentrain.options.identity import resolved
from gentrain.reporting import plots
from gentrain.reporting.loggers import Loggers

SAMPLES = "samples"  # the label of what a model has drawn


class Writer:
    """Writes a run's files and tells the person in front of it how it goes. Only the primary process does either."""

    def __init__(self, workdir: Path, *, primary: bool = True):
        self.workdir = workdir
        self.primary = primary
        self.loggers: Loggers | None = None
        self.bar: tqdm | None = None
        self.before = files.read_json(workdir / "status.json")  # what the start before this one left
        self.step: int | None = self.before.get("step")  # the newest known one
        if not primary:
            return
        (workdir / "samples").mkdir(parents=True, exist_ok=True)
        self.file = open(workdir / "metrics.jsonl", "a+b")  # noqa: SIM115, closed in close()
        if self.file.tell() and not self._ends_in_newline():
            self.file.write(b"\n")  # a kill cut the last line short

    def begin(self, config: ConfigDict) -> None:
        """Starts the loggers. Raises ConfigError for one that cannot be."""
        self.status("starting")
        self.loggers = Loggers(config.log.loggers, self.workdir, resolved(config), primary=self.primary)

    def check_before(self) -> None:
        """Says how the start before this one ended, where it could not say so itself. Raises CheckpointError where it
        came further than any checkpoint that there is."""
        if self.before.get("state") in ("starting", "training"):
            self.say(f"the last start ended without a word at step {self.step or 0}: killed, or its machine went down")
        folder = self.workdir / "checkpoints"
        if not self.step or any(path.name.isdecimal() for path in folder.glob("*")):
            return
        if self.before.get("state") == "done" or not folder.is_dir():
            raise CheckpointError(
                f"{folder} has no checkpoint, and status.json says that step {self.step} was reached; put it back, or"
                " delete status.json to begin anew"
            )
        self.say(f"{folder} has no checkpoint; beginning anew, though step {self.step} was reached")

    def _ends_in_newline(self) -> bool:
        self.file.seek(-1, os.SEEK_END)
        return self.file.read(1) == b"\n"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl."""
        if not self.primary:
            return
        line = json.dumps({"step": step, "time": round(time.time(), 3), **finite(values)})
        with files.naming(self.workdir / "metrics.jsonl"):
            self.file.write(line.encode() + b"\n")
            self.file.flush()
            os.fsync(self.file.fileno())  # a checkpoint must not outlast what was measured before it
        if self.loggers:
            self.loggers.scalars(step, values)

    def samples(self, step: int, value: Texts | Images, label: str = SAMPLES) -> None:
        """samples/<step>.txt or .png; what has another label, in a folder of that name in there."""
        if not self.primary:
            return
        path = self.workdir / "samples" / ("" if label == SAMPLES else label) / f"{step:07d}"
        path.parent.mkdir(exist_ok=True)
        keep_samples(path, value)

    def status(self, state: str, step: int | None = None, **why: str | int) -> None:
        """status.json, for whoever watches from outside: the state, the newest known step and when that was so."""
        if self.primary:
            self.step = step if step is not None else self.step
            status = {"state": state, "step": self.step, "time": round(time.time(), 3), **why}
            files.note_json(self.workdir / "status.json", status)

    def ended(self, error: BaseException) -> None:
        """status.json of a run that an error ends: why, and with which exit code."""
        known = explain(error)
        code = known.exit_code if known else 1
        self.status("stopped" if code == 42 else "failed", reason=first_line(error), exit_code=code)

    def progress(self, start: int, steps: int) -> None:
        """Begins to count steps, in a bar where a terminal watches."""
        self.began = time.monotonic()
        self.first_step, self.last_step = start, steps
        if self.primary and sys.stdout.isatty():
            form = "{n}/{total} |{bar}| {desc}[{elapsed}<{remaining}]"
            self.bar = tqdm(initial=start, total=steps, bar_format=form, dynamic_ncols=True, file=sys.stdout)

    def advance(self) -> None:
        """One step more, for the bar."""
        if self.bar is not None:
            self.bar.update()

    def log(self, step: int, text: str) -> None:
        """The numbers of a step and the time that is left: in the bar, or on a line of their own."""
        if self.bar is not None:
            return self.bar.set_description_str(f"{text} ")
        seconds_a_step = (time.monotonic() - self.began) / max(step - self.first_step, 1)
        left = seconds_a_step * (self.last_step - step)
        self.say(f"step {step:,}/{self.last_step:,}: {text}, {left:.0f} s left")

    def finish(self) -> None:
        """Leaves the bar where it is; what is said after stands below it."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def say(self, text: str) -> None:
        """A line for the person in front of the run."""
        if self.primary:
            with console.unless_gone(sys.stdout):
                tqdm.write(text, file=sys.stdout)

    def close(self) -> None:
        self.finish()
        if self.loggers:
            self.loggers.close()
        if self.primary:
            self.file.close()


def show(
    workdir: Path,
    mode: str,
    about: Mapping[str, Any],
    numbers: Mapping[str, float],
    samples: Mapping[str, Texts | Images],
) -> None:
    """Prints what was sampled and, with mode 'evaluate', measured, and keeps it: pictures as sample.png or, with mode
    'evaluate', everything as evaluations/<step>-<split>.json, .txt and .png, beside what was measured there otherwise.

    about: the step, and the config of how it was sampled and measured. What is printed can do without being kept.
    """
    for value in samples.values():
        if isinstance(value, Texts):
            console.say("\n".join(value.texts))
    if mode == "evaluate":
        console.say("\n".join(f"{name} {value:.6g}" for name, value in numbers.items()))
    try:
        if mode == "evaluate":
            keep_evaluation(workdir / "evaluations", {**about, "metrics": finite(numbers)}, samples)
            return
        for label, value in samples.items():
            if isinstance(value, Images):
                console.say(str(keep_samples(workdir / ("sample" if label == SAMPLES else label), value)))
    except OSError as error:
        if mode == "sample":
            raise
        warnings.warn(f"the numbers are not kept: {error}", stacklevel=2)


def keep_evaluation(folder: Path, content: Mapping[str, Any], samples: Mapping[str, Texts | Images]) -> None:
    """Writes what was measured, and the samples, and says where. What the folder has of the same step and split stays:
    the names get a number, unless it is the same content."""
    folder.mkdir(exist_ok=True)
    name = first = f"{content['step']:07d}-{content['config']['evaluate.split']}"
    number = 1
    while (folder / f"{name}.json").exists() and files.read_json(folder / f"{name}.json") != content:
        number += 1
        name = f"{first}-{number}"
    for label, value in samples.items():
        console.say(str(keep_samples(folder / (name if label == SAMPLES else f"{name}-{label}"), value)))
    files.write_json(folder / f"{name}.json", content)
    console.say(str(folder / f"{name}.json"))


def keep_samples(path: Path, value: Texts | Images) -> Path:
    """Writes samples as path.txt or path.png, and returns which."""
    if isinstance(value, Texts):
        path = path.with_name(f"{path.name}.txt")
        files.write_bytes(path, ("\n".join(value.texts) + "\n").encode())
    else:
        path = path.with_name(f"{path.name}.png")
        plots.image_grid(value.images, path)
    return path


def finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them: those that are not finite become null, for which it has no word."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
