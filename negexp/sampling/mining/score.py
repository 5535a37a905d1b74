"""The nearest neighbours whose similarity to the point is within bounds."""

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

BOUNDS = ("low", "high", "margin")
SMALLEST = -1e9  # similarities: cosines, BM25 scores and scores of cross-encoders are far inside
LARGEST = 1e9


@dataclass
class ScoreOptions(MiningConfig):
    """The bounds of cosines, BM25 scores (`sampler.source=bm25`), or a cross-encoder's (`negexp mine rescore=`)."""

    low: ScheduleConfig | None = scheduled(
        "neighbours with a lower similarity are dropped; null: none", low=SMALLEST, high=LARGEST
    )
    high: ScheduleConfig | None = scheduled(
        "neighbours with a higher similarity are dropped, as likely false negatives; null: none",
        low=SMALLEST,
        high=LARGEST,
    )
    margin: ScheduleConfig | None = scheduled(
        "neighbours with a similarity above the own counter's minus this are dropped; null: none",
        low=SMALLEST,
        high=LARGEST,
    )

    def check_sampler(self, sampler: SamplerConfig, key: str) -> None:
        """Raise `InputError` without a bound, or if no similarity is between the bounds."""
        if all(getattr(self, name) is None for name in BOUNDS):
            raise InputError(f"{key}.low, {key}.high and {key}.margin: all are null; give one, or use mining=nearest")
        if self.low is not None and self.high is not None:
            low, high = min(self.low.extremes(), default=SMALLEST), max(self.high.extremes(), default=LARGEST)
            if low > high:
                raise InputError(f"{key}.low={low:g}: is above {key}.high={high:g}; lower it")


class Score(MiningPolicy):
    """The k nearest with a similarity of at least `low`, at most `high`, and at most the own counter's minus `margin`.

    sentence-transformers has the same bounds (`mine_hard_negatives`: min_score, max_score, absolute_margin).
    """

    Options = ScoreOptions
    options: ScoreOptions
    leaves_out = "outside of the bounds of the similarity"

    def __init__(self, options: ScoreOptions) -> None:
        super().__init__(options)
        self.bounds = {name: ScheduledNumber(options, name) for name in BOUNDS if getattr(options, name) is not None}

    def eligible(self, neighbours: Neighbours, round_: SamplingRound) -> Mask:
        """Return which neighbours are within the bounds."""
        pair, bounds = neighbours.pair, {name: round_.value(number) for name, number in self.bounds.items()}
        similarity = round_.similarity(pair, neighbours.argument)
        highest = np.full((len(pair), 1), bounds.get("high", np.inf))
        if "margin" in bounds:
            own = round_.similarity(pair, round_.arguments.number("counter", pair[:, None]))
            highest = np.minimum(highest, own - bounds["margin"])
        kept: Mask = (similarity >= bounds.get("low", -np.inf)) & (similarity <= highest)
        return kept & neighbours.allowed

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        """Take the nearest ones."""
        return take_first(neighbours, neighbours.allowed, round_.num_negatives)
