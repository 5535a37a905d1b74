"""Strategies that draw random negatives for some pairs and mine hard negatives for the others."""

from __future__ import annotations

import numpy as np

from negexp.sampling.negatives import Negatives
from negexp.sampling.round import SamplingRound
from negexp.sampling.sampler import NegativeSampler


class Mixture(NegativeSampler):
    """For each pair independently: random negatives with probability `random_rate`, else hard ones."""

    def choose(self, round_: SamplingRound) -> Negatives:
        """Decide for each pair whether to draw or to mine, then do so."""
        rate = self.random_rate(round_.progress, round_.validation)
        at_random = round_.rng.random(round_.pairs) < rate
        drawn, mined = np.flatnonzero(at_random), np.flatnonzero(~at_random)
        parts = [(drawn, round_.draw(drawn))] if len(drawn) else []
        parts += [(mined, self.mine(round_, mined))] if len(mined) else []
        return Negatives.join(parts)
