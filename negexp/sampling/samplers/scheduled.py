"""For each pair independently: random with a probability that follows a schedule, else hard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import build, component
from negexp.config import SamplerConfig, ScheduleConfig
from negexp.sampling.mixture import Mixture
from negexp.sampling.schedule import Schedule


@dataclass
class ScheduledOptions(SamplerConfig):
    """The schedule of the random rate."""

    random_rate: ScheduleConfig = component("schedule", "probability that a pair's negatives are drawn at random")


class Scheduled(Mixture):
    """Random with probability random_rate(progress), clipped to [0, 1], else hard."""

    Options = ScheduledOptions
    options: ScheduledOptions

    def __init__(self, options: ScheduledOptions) -> None:
        super().__init__(options)
        self.schedule: Schedule = build("schedule", options.random_rate)

    def random_rate(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return the schedule's value, clipped to [0, 1]."""
        return min(1.0, max(0.0, self.schedule.value(progress, validation)))
