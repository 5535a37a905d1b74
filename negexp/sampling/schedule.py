"""The base class of schedules: numbers that change during training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from negexp.config import ScheduleConfig


class Schedule(ABC):
    """Base of all schedules. A schedule has no state: equal arguments give equal numbers."""

    Options: type[ScheduleConfig] = ScheduleConfig

    def __init__(self, options: ScheduleConfig) -> None:
        self.options = options

    @abstractmethod
    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the number after `progress` epochs; `validation` holds the monitored value of each finished epoch."""
