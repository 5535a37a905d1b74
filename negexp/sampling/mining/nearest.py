"""The k nearest, as in the original."""

from __future__ import annotations

from negexp.sampling.negatives import Negatives, Neighbours
from negexp.sampling.policy import MiningPolicy, take_first
from negexp.sampling.round import SamplingRound


class Nearest(MiningPolicy):
    """The k nearest arguments that are not forbidden."""

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        """Take the first k allowed ones."""
        return take_first(neighbours, neighbours.allowed, round_.num_negatives)
