"""A linear decrease to a lowest value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import option
from negexp.config import ScheduleConfig
from negexp.sampling.schedule import Schedule


@dataclass
class LinearOptions(ScheduleConfig):
    """max(end, start - step * progress)."""

    start: float = option("value in the first epoch")
    step: float = option("decrease per epoch", low=0)
    end: float = option("lowest value")

    def extremes(self) -> tuple[float, ...]:
        """Return the values between which the schedule stays."""
        return (max(self.start, self.end), self.end)


class Linear(Schedule):
    """max(end, start - step * progress)."""

    Options = LinearOptions
    options: LinearOptions

    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the value after `progress` epochs."""
        return max(self.options.end, self.options.start - self.options.step * progress)
