"""Everything that a run leaves in its workdir while it goes on: metrics.jsonl, TensorBoard events, status.json, samples."""

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
    """Everything that a run leaves in its workdir while it goes on. Only the first process writes."""

    def __init__(self, workdir: Path, *, tensorboard: bool, primary: bool = True):
        self.workdir, self.primary = workdir, primary
        self.events: Any = None
        self.bar: tqdm | None = None
        self.step: int | None = None
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
        if not self.primary:
            return
        if isinstance(value, Texts):
            (self.workdir / "samples" / f"{step:07d}.txt").write_text("\n".join(value.texts) + "\n")
        else:
            plots.image_grid(value.images, self.workdir / "samples" / f"{step:07d}.png")

    def status(self, state: str, step: int | None = None) -> None:
        """status.json, for whoever watches from outside: the state, the newest known step and when that was so."""
        if self.primary:
            self.step = step if step is not None else self.step
            files.write_json(
                self.workdir / "status.json", {"state": state, "step": self.step, "time": round(time.time(), 3)}
            )

    def progress(self, start: int, steps: int) -> None:
        """Begins to count steps: in a bar where a terminal watches."""
        self.began = (time.monotonic(), start, steps)
        if self.primary and sys.stdout.isatty():
            form = "{n}/{total} |{bar}| {desc}[{elapsed}<{remaining}]"
            self.bar = tqdm(initial=start, total=steps, bar_format=form, dynamic_ncols=True, file=sys.stdout)

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.update()

    def log(self, step: int, text: str) -> None:
        """The numbers of a step and the time that is left: in the bar, or on a line of their own."""
        if self.bar is not None:
            return self.bar.set_description_str(f"{text} ")
        since, start, steps = self.began
        left = (time.monotonic() - since) / max(step - start, 1) * (steps - step)
        self.say(f"step {step:,}/{steps:,}: {text}, {left:.0f} s left")

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
