"""Signs that a run goes wrong, watched in its metrics and said once."""

from collections.abc import Mapping, Sequence

from gentrain.objectives.base import Alarm
from gentrain.sums import Metric

METRICS = {"health/<alarm>": Metric("0 or 1", None, "whether an alarm was raised")}


class Alarms:
    """An alarm is raised while its sign has shown for as many times in a row as its patience, or more. It is said once,
    and again after the sign went away."""

    def __init__(self, alarms: Sequence[Alarm]) -> None:
        self.alarms = alarms
        self.times_in_a_row = {alarm.name: 0 for alarm in alarms}

    def read(self, means: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
        """{'health/collapse': 0 or 1, …}, and the lines to be said now."""
        lines = []
        for alarm in self.alarms:
            times = self.times_in_a_row[alarm.name] + 1 if alarm.shows(means) else 0
            self.times_in_a_row[alarm.name] = times
            if times == alarm.patience:
                lines.append(alarm.text.format_map(means))
        raised = {
            f"health/{alarm.name}": float(self.times_in_a_row[alarm.name] >= alarm.patience) for alarm in self.alarms
        }
        return raised, lines
