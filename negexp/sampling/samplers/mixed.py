"""A share of the negatives is hard, the others are random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from negexp.components import scheduled
from negexp.config import SamplerConfig, ScheduleConfig
from negexp.sampling.negatives import Negatives
from negexp.sampling.round import Ints, SamplingRound
from negexp.sampling.sampler import NegativeSampler
from negexp.sampling.schedule import ScheduledNumber


@dataclass
class MixedOptions(SamplerConfig):
    """The share."""

    hard_share: ScheduleConfig = scheduled(
        "share of all negatives that is hard, exactly; each pair has as many hard ones as another, or one more",
        low=0,
        high=1,
    )


class Mixed(NegativeSampler):
    """round(hard_share * pairs * k) hard negatives, spread evenly over the pairs; the others are random.

    With k = 1 these pairs have a hard negative, and the others a random one. With k > 1 a pair has hard negatives and
    then random ones. Which pairs have one more is drawn anew at each refresh. Source: STAR (Zhan et al. 2021,
    2104.08051), which combines static hard negatives with random ones.
    """

    Options = MixedOptions
    options: MixedOptions

    def __init__(self, options: MixedOptions) -> None:
        super().__init__(options)
        self.share = ScheduledNumber(options, "hard_share")

    def random_rate(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return the share of random negatives."""
        return 1 - self.share.value(progress, validation)

    def choose(self, round_: SamplingRound) -> Negatives:
        """Return hard negatives and random ones for each pair."""
        hard = round(round_.value(self.share) * round_.pairs * round_.num_negatives)
        each, more = divmod(hard, round_.pairs)
        order = round_.rng.permutation(round_.pairs)
        groups = ((np.sort(order[:more]), each + 1), (np.sort(order[more:]), each))
        return Negatives.join([(pair, self._some_hard(round_, pair, count)) for pair, count in groups if len(pair)])

    def _some_hard(self, round_: SamplingRound, pair: Ints, count: int) -> Negatives:
        """Return `count` hard negatives for each of the pairs, and random ones for the rest of k."""
        if count == 0:
            return round_.draw(pair)
        hard = self.mine(round_.wanting(count), pair)
        if count == round_.num_negatives:
            return hard
        taken = np.where(hard.found, hard.argument, -1)
        return hard.beside(round_.wanting(round_.num_negatives - count).draw(pair, taken))
