"""Pairs in random order."""

from __future__ import annotations

import numpy as np

from negexp.sampling.batch_plan import BatchPlan, BatchRound
from negexp.sampling.round import Ints


class Shuffled(BatchPlan):
    """A random order of all pairs, cut into batches; the last one has the rest."""

    def compose(self, round_: BatchRound) -> list[Ints]:
        """Draw the order."""
        order = round_.rng.permutation(round_.pairs)
        return np.array_split(order, range(round_.size, round_.pairs, round_.size))
