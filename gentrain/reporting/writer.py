"""What a run leaves in its workdir while it goes on: metrics.jsonl, TensorBoard events, status.json and samples."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gentrain import files
from gentrain.datasets.spec import Images, Texts
from gentrain.reporting import plots


class Writer:
    """Writes a run's files and tells the person in front of it how it goes. Only the primary process does either."""

    def __init__(self, workdir: Path, *, tensorboard: bool, primary: bool = True):
        self.workdir = workdir
        self.primary = primary
        self.events: Any = None  # TensorBoard's writer
        self.bar: tqdm | None = None
        self.step: int | None = None  # the newest known one
        if not primary:
            return
        (workdir / "samples").mkdir(parents=True, exist_ok=True)
        self.file = open(workdir / "metrics.jsonl", "a+b")  # noqa: SIM115, closed in close()
        if self.file.tell() and not self._ends_in_newline():
            self.file.write(b"\n")  # a kill cut the last line short
        if tensorboard:
            from tensorboardX import SummaryWriter

            self.events = SummaryWriter(str(workdir / "tensorboard"))

    def _ends_in_newline(self) -> bool:
        self.file.seek(-1, os.SEEK_END)
        return self.file.read(1) == b"\n"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl. Numbers that are not finite become null: JSON has no word for them."""
        if not self.primary:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"step": step, "time": round(time.time(), 3), **finite})
        self.file.write(line.encode() + b"\n")
        self.file.flush()
        if self.events:
            for name, value in values.items():
                self.events.add_scalar(name, value, step)

    def samples(self, step: int, value: Texts | Images) -> None:
        """samples/<step>.txt or .png."""
        if not self.primary:
            return
        path = self.workdir / "samples" / f"{step:07d}"
        if isinstance(value, Texts):
            path.with_suffix(".txt").write_text("\n".join(value.texts) + "\n")
        else:
            plots.image_grid(value.images, path.with_suffix(".png"))

    def status(self, state: str, step: int | None = None) -> None:
        """status.json, for whoever watches from outside: the state, the newest known step and when that was so."""
        if self.primary:
            self.step = step if step is not None else self.step
            status = {"state": state, "step": self.step, "time": round(time.time(), 3)}
            files.write_json(self.workdir / "status.json", status)

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
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        self.finish()
        if self.events:
            self.events.close()
        if self.primary:
            self.file.close()
