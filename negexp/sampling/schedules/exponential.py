"""An exponential approach from one value to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import option
from negexp.config import ScheduleConfig
from negexp.sampling.schedule import Schedule


@dataclass
class ExponentialOptions(ScheduleConfig):
    """The two values, and how fast the distance between them shrinks."""

    start: float = option("value at the beginning")
    half_life: float = option("epochs in which the distance to end halves", low=0.001)
    end: float = option("value that is approached; it may be above start")

    def extremes(self) -> tuple[float, ...]:
        """Return the values between which the schedule stays."""
        return (self.start, self.end)


class Exponential(Schedule):
    """end + (start - end) * 0.5 ** (progress / half_life)."""

    Options = ExponentialOptions
    options: ExponentialOptions

    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the value after `progress` epochs."""
        start, end = self.options.start, self.options.end
        return float(end + (start - end) * 0.5 ** (progress / self.options.half_life))
