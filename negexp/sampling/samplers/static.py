"""Random draws of the first epoch, kept for all epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from negexp.config import SamplerConfig
from negexp.errors import InputError
from negexp.sampling.negatives import Negatives
from negexp.sampling.round import SamplingRound
from negexp.sampling.sampler import NegativeSampler


@dataclass
class StaticOptions(SamplerConfig):
    """The options of all strategies, without a refresh."""

    def check(self) -> None:
        """Raise `InputError` if a refresh within an epoch, or for drift, is configured."""
        if self.refresh.steps is not None:
            raise InputError(
                f"sampler.refresh.steps={self.refresh.steps}: sampler=static keeps its negatives; use sampler=random"
            )
        if self.refresh.drift is not None:
            raise InputError(
                f"sampler.refresh.drift={self.refresh.drift}: sampler=static keeps its negatives; leave out drift"
            )


class Static(NegativeSampler):
    """Random negatives that never change."""

    Options = StaticOptions

    mines = False

    def random_rate(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return 1."""
        return 1.0

    def refreshes(self, epoch: int) -> bool:
        """Return whether this is the first epoch."""
        return epoch == 0

    def choose(self, round_: SamplingRound) -> Negatives:
        """Draw for every pair."""
        return round_.draw(np.arange(round_.pairs))
