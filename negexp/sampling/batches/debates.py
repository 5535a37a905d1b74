"""Whole debates together."""

from __future__ import annotations

from negexp.sampling.batch_plan import BatchPlan, BatchRound
from negexp.sampling.packing import cut, pack, shuffled_groups
from negexp.sampling.round import Ints


class Debates(BatchPlan):
    """Debates in random order, each whole in the first batch with room for it.

    A debate with more pairs than `trainer.batch_size` is cut into the fewest parts that fit. The parts are drawn anew
    in every epoch, and their sizes differ by at most one.
    """

    column = "debate"

    def compose(self, round_: BatchRound) -> list[Ints]:
        """Draw the order of the debates, and pack them."""
        code = round_.arguments.debate
        assert code is not None
        debates = shuffled_groups(code[: round_.pairs], round_.rng)
        return pack(cut(debates, round_.size), round_.size, round_.rng)
