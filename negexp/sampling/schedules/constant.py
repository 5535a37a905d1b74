"""A constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import option
from negexp.config import ScheduleConfig
from negexp.sampling.schedule import Schedule


@dataclass
class ConstantOptions(ScheduleConfig):
    """One number."""

    constant: float = option("the value of every epoch")

    def extremes(self) -> tuple[float, ...]:
        """Return the values between which the schedule stays."""
        return (self.constant,)


class Constant(Schedule):
    """The same value after any number of epochs."""

    Options = ConstantOptions
    options: ConstantOptions

    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the value."""
        return self.options.constant
