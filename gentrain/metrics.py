"""What a run says of itself: sums, metrics.jsonl, TensorBoard events, status.json, samples and pictures, a progress
bar."""

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from gentrain import devices


class Sum(NamedTuple):
    """A mean kept as its two halves, so that it may be added over microbatches, devices, hosts and batches.

    total: e.g. nats summed over tokens; weight: e.g. tokens. The mean is total / weight.
    """

    total: jax.Array | float
    weight: jax.Array | float


class Texts(NamedTuple):
    """Samples to read: written to samples/<step>.txt."""

    texts: list[str]


class Images(NamedTuple):
    """Samples to look at: (n, height, width, channels) uint8, written as one grid to samples/<step>.png."""

    images: np.ndarray


def add(sums: Iterable[Mapping[str, Sum]]) -> dict[str, Sum]:
    """Adds the sums of several steps or batches, name by name, in double precision on the host."""
    added: dict[str, Sum] = {}
    for named in jax.device_get(list(sums)):
        for name, (total, weight) in named.items():
            before = added.get(name, Sum(0.0, 0.0))
            added[name] = Sum(before.total + float(total), before.weight + float(weight))
    return added


def paced(results: Iterable[Any]) -> Iterator[Any]:
    """The results of programs on the device, of which at most one is left to run ahead: the inputs of a whole split
    would pile up there, and a step that hangs would not be seen as one."""
    before = None
    for result in results:
        yield result
        jax.block_until_ready(before)
        before = result


def mean(value: Sum) -> float:
    """total / weight, or nan where nothing was weighed."""
    return float(value.total / value.weight) if value.weight else math.nan


class Meter:
    """Sums over the steps since the last line of the log, and how fast they went.

    mfu is the share of the devices' peak in use, counting 6 FLOP a parameter and token (attention not counted).
    """

    def __init__(self, player: str, parameters: int):
        """player: whose sums are weighed in tokens (sampled ones, where its loss is weighed in sequences); parameters:
        how many each of them goes through."""
        kind = jax.devices()[0].device_kind
        peak = devices.known(devices.PEAK_FLOPS, kind) or math.nan
        # A multiply and an add for each parameter and token forward, twice that backward.
        self.share = 6 * parameters / (peak * jax.device_count())
        self.player = player
        self.reset()

    def reset(self) -> None:
        self.pending: list[dict[str, Sum]] = []
        self.since = time.monotonic()

    def push(self, sums: dict[str, Sum]) -> None:
        """The sums of one more step, of which at most one is left to run ahead: so a step that hangs is seen as one."""
        self.pending.append(sums)
        jax.block_until_ready(self.pending[-2:-1])

    def read(self) -> dict[str, float]:
        """Means over the pending steps, tokens/second and, where the device's peak is known, the share of it in use."""
        sums = add(self.pending)
        tokens = sums.get(f"{self.player}/entropy", sums[f"{self.player}/loss"]).weight
        rate = float(tokens) / (time.monotonic() - self.since)
        values = {name: mean(value) for name, value in sums.items()} | {"tokens_per_second": rate}
        if math.isfinite(self.share):
            values["mfu"] = rate * self.share
        return values


class Profile:
    """A trace of steps first … last - 1, by jax.profiler, for TensorBoard or Perfetto; of no steps where they are
    ()."""

    def __init__(self, folder: Path, steps: Sequence[int]):
        self.folder, self.steps, self.tracing = folder, tuple(steps), False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()

    def at(self, step: int) -> None:
        """Before a step: begins or ends the trace where it is time."""
        if self.steps and step == self.steps[0]:
            jax.profiler.start_trace(self.folder)
            self.tracing = True
        elif self.tracing and step >= self.steps[1]:
            self.__exit__()


def write_json(path: Path, value: Any) -> None:
    """Writes the whole file or nothing: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """What write_json wrote, or {} where there is no such file."""
    return json.loads(path.read_text()) if path.exists() else {}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of metrics.jsonl in order of step; where a resumed run did a step again the later line counts.

    A line cut short by a kill is skipped.
    """
    merged: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        merged.setdefault(record["step"], {}).update(record)
    return [merged[step] for step in sorted(merged)]


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
            from gentrain.plots import image_grid

            image_grid(value.images, self.workdir / "samples" / f"{step:07d}.png")

    def status(self, state: str, step: int | None = None) -> None:
        """status.json, for whoever watches from outside: the state, the newest known step and when that was so."""
        if self.primary:
            self.step = step if step is not None else self.step
            write_json(self.workdir / "status.json", {"state": state, "step": self.step, "time": round(time.time(), 3)})

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
