"""Pairs of one theme together."""

from __future__ import annotations

import numpy as np

from negexp.sampling.batch_plan import BatchPlan, BatchRound
from negexp.sampling.packing import pack, shuffled_groups
from negexp.sampling.round import Ints


class Themes(BatchPlan):
    """The pairs of each theme in random order, cut into batches; small themes and rests share batches."""

    column = "theme"

    def compose(self, round_: BatchRound) -> list[Ints]:
        """Draw the order of the pairs of each theme, cut it, and pack the parts."""
        code = round_.arguments.theme
        assert code is not None
        themes = shuffled_groups(code[: round_.pairs], round_.rng)
        size = round_.size
        parts = [part for theme in themes for part in np.array_split(theme, range(size, len(theme), size))]
        return pack(parts, size, round_.rng)
