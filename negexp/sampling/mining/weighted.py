"""Negatives drawn with a preference for those about as similar as the pair's own counter."""

from __future__ import annotations

from dataclasses import dataclass

from negexp.components import option, scheduled
from negexp.config import MiningConfig, SamplerConfig, ScheduleConfig
from negexp.errors import InputError
from negexp.sampling.negatives import Negatives, Neighbours
from negexp.sampling.policy import MiningPolicy, take_drawn
from negexp.sampling.round import SamplingRound
from negexp.sampling.schedule import ScheduledNumber


@dataclass
class WeightedOptions(MiningConfig):
    """The weights, and how many neighbours get one."""

    a: ScheduleConfig = scheduled("how strong the preference is; 0: none. Cosines need 50 to 200", low=0, high=1e9)
    b: ScheduleConfig = scheduled("the preferred cosine, minus that of the own counter", low=-2, high=2)
    depth: int = option("so many of the nearest allowed neighbours have a chance", low=1)

    def check_sampler(self, sampler: SamplerConfig, key: str) -> None:
        """Raise `InputError` if fewer than k neighbours have a chance."""
        if self.depth < sampler.num_negatives:
            raise InputError(f"{key}.depth={self.depth}: below sampler.num_negatives={sampler.num_negatives}; raise it")


class Weighted(MiningPolicy):
    """k negatives, drawn without replacement with p proportional to exp(-a (s - s_counter - b)^2).

    s is the cosine with the point. Source: SimANS (Zhou et al. 2022, 2210.11773, equation 5).
    """

    Options = WeightedOptions
    options: WeightedOptions

    def __init__(self, options: WeightedOptions) -> None:
        super().__init__(options)
        self.a, self.b = (ScheduledNumber(options, key) for key in ("a", "b"))

    def depth(self, round_: SamplingRound) -> int:
        """Return how many neighbours have a chance."""
        return self.options.depth

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        """Draw k of the `depth` nearest."""
        near = neighbours.allowed & (neighbours.allowed.cumsum(axis=1) <= self.options.depth)
        pair = neighbours.pair
        own = round_.similarity(pair, round_.arguments.number("counter", pair[:, None]))
        difference = round_.similarity(pair, neighbours.argument) - own - round_.value(self.b)
        return take_drawn(neighbours, near, -round_.value(self.a) * difference**2, round_)
