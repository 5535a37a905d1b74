"""Half a cosine wave from one value to another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import option
from negexp.config import ScheduleConfig
from negexp.sampling.schedule import Schedule


@dataclass
class CosineOptions(ScheduleConfig):
    """The two values, and the epochs between them."""

    start: float = option("value at the beginning")
    end: float = option("value after so many epochs, and from then on; it may be above start")
    epochs: float = option("epochs from start to end", low=0)

    def extremes(self) -> tuple[float, ...]:
        """Return the values between which the schedule stays."""
        return (self.start, self.end)


class Cosine(Schedule):
    """end + (start - end) * (1 + cos(pi * progress / epochs)) / 2, then end."""

    Options = CosineOptions
    options: CosineOptions

    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the value after `progress` epochs."""
        start, end, epochs = self.options.start, self.options.end, self.options.epochs
        if progress >= epochs:
            return end
        return end + (start - end) * (1 + math.cos(math.pi * progress / epochs)) / 2
