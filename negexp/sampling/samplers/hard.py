"""The nearest arguments that are not forbidden."""

from __future__ import annotations

import numpy as np

from negexp.sampling.negatives import Negatives
from negexp.sampling.round import SamplingRound
from negexp.sampling.sampler import NegativeSampler


class Hard(NegativeSampler):
    """Mined negatives for every pair."""

    def choose(self, round_: SamplingRound) -> Negatives:
        """Mine for every pair."""
        return self.mine(round_, np.arange(round_.pairs))
