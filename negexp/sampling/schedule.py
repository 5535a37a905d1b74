"""What a schedule is: a number that changes while training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from negexp.config import ScheduleConfig


class Schedule(ABC):
    """Base of all schedules. A schedule keeps no state: the same arguments give the same number."""

    Options: type[ScheduleConfig] = ScheduleConfig

    def __init__(self, options: ScheduleConfig) -> None:
        self.options = options

    @abstractmethod
    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the number after `progress` epochs; `validation` holds the monitored value after each of them."""
