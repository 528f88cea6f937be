"""Events for TensorBoard, in tensorboard/.

tensorboardX's own SummaryWriter writes in a thread of its own: when that dies of a full disk, the run hangs.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary


def build(workdir: Path, config: Mapping[str, Any]) -> "Events":
    """A new file of events."""
    (workdir / "tensorboard").mkdir(exist_ok=True)
    return Events(EventsWriter(str(workdir / "tensorboard" / "events")))


class Events:
    """One file; each step's numbers have reached it when `scalars` returns."""

    def __init__(self, file: EventsWriter):
        self.file = file

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self.file.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self.file.flush()

    def close(self) -> None:
        self.file.close()
