"""Uniform draws among the arguments that are not forbidden."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from negexp.sampling.negatives import Negatives
from negexp.sampling.round import SamplingRound
from negexp.sampling.sampler import NegativeSampler


class Random(NegativeSampler):
    """Random negatives for every pair."""

    mines = False

    def random_rate(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return 1."""
        return 1.0

    def choose(self, round_: SamplingRound) -> Negatives:
        """Draw for every pair."""
        return round_.draw(np.arange(round_.pairs))
