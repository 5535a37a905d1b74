"""A value that moves in a straight line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import option
from negexp.config import ScheduleConfig
from negexp.sampling.schedule import Schedule


@dataclass
class LinearOptions(ScheduleConfig):
    """From start to end, by the same step in each epoch."""

    start: float = option("value in the first epoch")
    step: float = option("size of the change per epoch", low=0)
    end: float = option("value that is reached, and kept; it may be above start")

    def extremes(self) -> tuple[float, ...]:
        """Return the values between which the schedule stays."""
        return (self.start, self.end)


class Linear(Schedule):
    """max(end, start - step * progress), or where the end is above the start min(end, start + step * progress)."""

    Options = LinearOptions
    options: LinearOptions

    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the value after `progress` epochs."""
        start, end, moved = self.options.start, self.options.end, self.options.step * progress
        return min(end, start + moved) if end > start else max(end, start - moved)
