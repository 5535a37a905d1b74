"""The base class of schedules: numbers that change during training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from negexp.components import Options, build
from negexp.components.options import rules
from negexp.config import ScheduleConfig


class Schedule(ABC):
    """Base of all schedules. A schedule has no state: equal arguments give equal numbers."""

    Options: type[ScheduleConfig] = ScheduleConfig

    def __init__(self, options: ScheduleConfig) -> None:
        self.options = options

    @abstractmethod
    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the number after `progress` epochs; `validation` holds the monitored value of each finished epoch."""


class ScheduledNumber:
    """The number of an option that was declared with `scheduled`, clipped to the option's range.

    Parameters
    ----------
    options
        The part's options.
    key
        The option; it must not be null.
    """

    def __init__(self, options: Options, key: str) -> None:
        _, rule = rules(type(options))[key]
        self.low = float("-inf") if rule.low is None else rule.low
        self.high = float("inf") if rule.high is None else rule.high
        self.schedule: Schedule = build("schedule", getattr(options, key))

    def value(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return the number after `progress` epochs, see `Schedule.value`."""
        return min(self.high, max(self.low, self.schedule.value(progress, validation)))
