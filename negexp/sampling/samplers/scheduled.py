"""For each pair independently: random with a probability that follows a schedule, else hard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import scheduled
from negexp.config import SamplerConfig, ScheduleConfig
from negexp.sampling.mixture import Mixture
from negexp.sampling.schedule import ScheduledNumber


@dataclass
class ScheduledOptions(SamplerConfig):
    """The schedule of the random rate."""

    random_rate: ScheduleConfig = scheduled("probability that a pair's negatives are drawn at random", low=0, high=1)


class Scheduled(Mixture):
    """Random with probability random_rate(progress), clipped to [0, 1], else hard."""

    Options = ScheduledOptions
    options: ScheduledOptions

    def __init__(self, options: ScheduledOptions) -> None:
        super().__init__(options)
        self.rate = ScheduledNumber(options, "random_rate")

    def random_rate(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return the schedule's value, clipped to [0, 1]."""
        return self.rate.value(progress, validation)
