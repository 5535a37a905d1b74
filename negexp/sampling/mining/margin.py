"""The nearest neighbours, without those that are too near compared with the pair's own counter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from negexp.components import scheduled
from negexp.config import MiningConfig, SamplerConfig, ScheduleConfig
from negexp.errors import InputError
from negexp.sampling.negatives import Negatives, Neighbours
from negexp.sampling.policy import Mask, MiningPolicy, take_first
from negexp.sampling.round import SamplingRound
from negexp.sampling.schedule import ScheduledNumber


@dataclass
class MarginOptions(MiningConfig):
    """The bound: absolute in distances, or relative in similarities."""

    margin: ScheduleConfig | None = scheduled(
        "neighbours nearer than the own counter's distance minus this are dropped; below 0, negatives are farther than "
        "the counter by at least so much; null: use share"
    )
    share: ScheduleConfig | None = scheduled(
        "neighbours with a cosine above this share of the own counter's are dropped (of a cosine below 0: below it by "
        "the rest of the share); null: use margin. Where the counter is seldom the nearest text, as in ArguAna, either "
        "bound drops the hardest texts of the pair's own debate; see `dropped` in the ledger",
        low=0,
        high=1,
    )

    def check_sampler(self, sampler: SamplerConfig, key: str) -> None:
        """Raise `InputError` unless there is one bound."""
        if (self.margin is None) == (self.share is None):
            state = "neither is" if self.margin is None else "both are"
            raise InputError(f"{key}.margin and {key}.share: {state} given; give one, and the other one =null")


class Margin(MiningPolicy):
    """The k nearest that are not too near, as false negatives would be.

    A neighbour is kept if its distance is at least d - margin, or its cosine at most c - (1 - share) * |c|, with the
    distance d and the cosine c of the pair's own counter. For c >= 0 the second bound is share * c: TopK-PercPos of
    NV-Retriever (Moreira et al. 2024, 2407.15831, section 3.2).
    """

    Options = MarginOptions
    options: MarginOptions
    leaves_out = "too near, by the margin to the pair's own counter"

    def __init__(self, options: MarginOptions) -> None:
        super().__init__(options)
        self.bound = ScheduledNumber(options, "share" if options.margin is None else "margin")

    def eligible(self, neighbours: Neighbours, round_: SamplingRound) -> Mask:
        """Return which neighbours are far enough."""
        pair, bound = neighbours.pair, round_.value(self.bound)
        if self.options.margin is not None:
            kept: Mask = neighbours.distance >= round_.positive_distance[pair][:, None] - bound
            return kept & neighbours.allowed
        own = round_.similarity(pair, round_.arguments.number("counter", pair[:, None]))
        highest = own - (1 - bound) * np.abs(own)
        return neighbours.allowed & (round_.similarity(pair, neighbours.argument) <= highest)

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        """Take the nearest ones."""
        return take_first(neighbours, neighbours.allowed, round_.num_negatives)
