"""Signs that a run goes wrong, watched in its metrics and said once."""

from collections.abc import Mapping, Sequence

from gentrain.objectives.base import Alarm
from gentrain.sums import Metric

METRICS = {"health/<alarm>": Metric("0 or 1", None, "whether an alarm was raised")}


class Alarms:
    """Raised when a sign showed in two looks in a row; said once, and again after it went away."""

    def __init__(self, alarms: Sequence[Alarm]) -> None:
        self.alarms = alarms
        self.looks = {alarm.name: 0 for alarm in alarms}

    def read(self, means: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
        """{'health/collapse': 0 or 1, …}, and the lines to be said now."""
        lines = []
        for alarm in self.alarms:
            self.looks[alarm.name] = self.looks[alarm.name] + 1 if alarm.shows(means) else 0
            if self.looks[alarm.name] == 2:
                lines.append(alarm.text.format_map(means))
        return {f"health/{name}": float(looks >= 2) for name, looks in self.looks.items()}, lines
