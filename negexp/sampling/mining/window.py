"""Negatives drawn from a window of ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from negexp.components import scheduled
from negexp.config import MiningConfig, SamplerConfig, ScheduleConfig
from negexp.errors import InputError
from negexp.sampling.forbidden import Forbidden
from negexp.sampling.negatives import Negatives, Neighbours
from negexp.sampling.policy import MiningPolicy, take_drawn
from negexp.sampling.round import Ints, SamplingRound
from negexp.sampling.schedule import ScheduledNumber


@dataclass
class WindowOptions(MiningConfig):
    """The edges of the window."""

    low: ScheduleConfig = scheduled("so many of the nearest allowed neighbours are passed over; rounded", low=0)
    high: ScheduleConfig = scheduled(
        "negatives are among the so many nearest allowed ones; rounded, at least low + sampler.num_negatives", low=1
    )

    def check_sampler(self, sampler: SamplerConfig, key: str) -> None:
        """Raise `InputError` if the window never has room for k negatives."""
        low, high = min(self.low.extremes(), default=0), max(self.high.extremes(), default=math.inf)
        k = sampler.num_negatives
        if high <= low:
            raise InputError(f"{key}.high={high:g}: must be above {key}.low={low:g}")
        if high - low < k:
            raise InputError(
                f"sampler.num_negatives={k}: the window has {high - low:g} ranks ({key}.low={low:g}, "
                f"{key}.high={high:g}); widen it"
            )


class Window(MiningPolicy):
    """k negatives, drawn without replacement from the ranks [low, high) among the allowed neighbours.

    The nearest allowed neighbour has rank 0, as in a slice. Source: Huang et al. 2020 (2006.11632, section 2.4).
    """

    Options = WindowOptions
    options: WindowOptions
    leaves_out = "outside of the window of ranks"

    def __init__(self, options: WindowOptions) -> None:
        super().__init__(options)
        self.low, self.high = (ScheduledNumber(options, key) for key in ("low", "high"))

    def edges(self, round_: SamplingRound) -> tuple[int, int]:
        """Return low and high at this refresh."""
        low, high = (math.floor(round_.value(number) + 0.5) for number in (self.low, self.high))
        return low, max(high, low + round_.num_negatives)

    def depth(self, round_: SamplingRound) -> int:
        """Return the upper edge."""
        return self.edges(round_)[1]

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        """Draw k of those in the window."""
        low, high = self.edges(round_)
        rank = np.cumsum(neighbours.allowed, axis=1) - 1
        inside = neighbours.allowed & (rank >= low) & (rank < high)
        return take_drawn(neighbours, inside, np.zeros(inside.shape), round_)

    def needs(self) -> int:
        """Return one more than the window passes over."""
        return 1 + math.floor(max(self.options.low.extremes(), default=0) + 0.5)

    def check_candidates(self, forbidden: Forbidden, tables: tuple[str, ...], candidates: Ints, key: str) -> None:
        """Raise `InputError` if the window begins beyond the last candidate of a pair."""
        low = max(self.options.low.extremes(), default=0)
        beyond = candidates < self.needs()
        if beyond.any():
            first = int(np.argmax(beyond))
            others = f", and {beyond.sum() - 1} more pairs have too few" if beyond.sum() > 1 else ""
            raise InputError(
                f"{key}.low={low:g}: training pair {first} has only {candidates[first]} candidates{others}; lower it"
            )
