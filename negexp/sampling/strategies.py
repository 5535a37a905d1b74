"""The strategies of the original experiments."""

from __future__ import annotations

import numpy as np

from negexp.config import SamplerConfig
from negexp.sampling.base import Negatives, NegativeSampler, SamplingRound


class HardSampler(NegativeSampler):
    """The nearest arguments that are not forbidden."""

    def choose(self, round_: SamplingRound) -> Negatives:
        """Mine for every pair."""
        return round_.mine(np.arange(round_.pairs))


class RandomSampler(NegativeSampler):
    """Uniform draws over the arguments that are not forbidden."""

    def random_rate(self, epoch: int) -> float:
        """Return 1."""
        return 1.0

    def choose(self, round_: SamplingRound) -> Negatives:
        """Draw for every pair."""
        return round_.draw(np.arange(round_.pairs))


class DecaySampler(NegativeSampler):
    """Each pair independently: random with probability random_rate(epoch), else hard."""

    def __init__(self, config: SamplerConfig) -> None:
        super().__init__(config)
        assert config.start_rate is not None
        assert config.step is not None
        assert config.end_rate is not None
        self.start_rate, self.step, self.end_rate = config.start_rate, config.step, config.end_rate

    def random_rate(self, epoch: int) -> float:
        """Return max(end_rate, start_rate - step * epoch)."""
        return max(self.end_rate, self.start_rate - self.step * epoch)

    def choose(self, round_: SamplingRound) -> Negatives:
        """Decide for each pair, then draw for some and mine for the others."""
        at_random = round_.rng.random(round_.pairs) < self.random_rate(round_.epoch)
        shape = (round_.pairs, round_.num_negatives)
        result = Negatives(np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64))
        for pair, choose in ((np.flatnonzero(at_random), round_.draw), (np.flatnonzero(~at_random), round_.mine)):
            if len(pair):
                part = choose(pair)
                result.argument[pair], result.neighbour_rank[pair] = part.argument, part.neighbour_rank
        return result


class StaticSampler(RandomSampler):
    """Random draws of the first epoch, kept for all others."""

    def refreshes(self, epoch: int) -> bool:
        """Return whether this is the first epoch."""
        return epoch == 0
