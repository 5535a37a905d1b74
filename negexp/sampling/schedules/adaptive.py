"""A value that moves when validation does not improve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import option
from negexp.config import ScheduleConfig
from negexp.sampling.schedule import Schedule


@dataclass
class AdaptiveOptions(ScheduleConfig):
    """The two values, the size of a move, and when to move."""

    start: float = option("value at the beginning")
    step: float = option("size of a move", low=0)
    end: float = option("value that the moves lead to; it may be above start")
    patience: int = option("epochs without a better trainer.monitor before a move, and before the next one", low=1)

    def extremes(self) -> tuple[float, ...]:
        """Return the values between which the schedule stays."""
        return (self.start, self.end)


class Adaptive(Schedule):
    """One step from start towards end for every `patience` epochs in a row without a new best validation value."""

    Options = AdaptiveOptions
    options: AdaptiveOptions

    def value(self, progress: float, validation: Sequence[float]) -> float:
        """Return the value after the epochs with these validation values."""
        start, end = self.options.start, self.options.end
        moved = self.options.step * moves(validation, self.options.patience)
        if moved >= abs(end - start):
            return end
        return start + moved if end > start else start - moved


def moves(validation: Sequence[float], patience: int) -> int:
    """Return how often `patience` values in a row were not above the best value before them.

    >>> moves([0.3, 0.2, 0.3, 0.4, 0.1], patience=1), moves([0.3, 0.2, 0.3, 0.4, 0.1], patience=2)
    (3, 1)
    """
    best, waited, count = float("-inf"), 0, 0
    for value in validation:
        waited = 0 if value > best else waited + 1
        best = max(best, value)
        if waited == patience:
            waited, count = 0, count + 1
    return count
