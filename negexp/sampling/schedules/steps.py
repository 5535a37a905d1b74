"""Values that change at given epochs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import option
from negexp.config import ScheduleConfig
from negexp.errors import InputError
from negexp.sampling.schedule import Schedule


@dataclass
class StepsOptions(ScheduleConfig):
    """The values, and the epochs at which they change."""

    values: list[float] = option("the first value, then the value from each of the epochs on")
    epochs: list[float] = option("epochs at which the value changes, ascending; one fewer than values", low=0)

    def check(self) -> None:
        """Raise `InputError` unless each value but the first has its epoch."""
        if len(self.values) != len(self.epochs) + 1:
            raise InputError(
                f"values={self.values}: {len(self.values)} numbers for {len(self.epochs)} epochs; give one more value "
                "than epochs"
            )
        if any(later <= earlier for earlier, later in zip(self.epochs, self.epochs[1:], strict=False)):
            raise InputError(f"epochs={self.epochs}: must ascend")

    def extremes(self) -> tuple[float, ...]:
        """Return the values between which the schedule stays."""
        return tuple(self.values)


class Steps(Schedule):
    """values[i] as soon as i of the epochs are reached."""

    Options = StepsOptions
    options: StepsOptions

    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the value after `progress` epochs."""
        return self.options.values[bisect_right(self.options.epochs, progress)]
