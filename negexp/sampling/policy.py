"""What a mining policy is: it decides which of a point's neighbours count as hard negatives."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from negexp.config import MiningConfig
from negexp.sampling.round import Negatives, Neighbours, SamplingRound


class MiningPolicy(ABC):
    """Base of all mining policies: a subclass says in `select` which neighbours become negatives."""

    Options: type[MiningConfig] = MiningConfig

    def __init__(self, options: MiningConfig) -> None:
        self.options = options

    def depth(self, round_: SamplingRound) -> int:
        """Return how many allowed neighbours of each point `select` needs to see; k by default."""
        return round_.num_negatives

    @abstractmethod
    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        """Return the negatives of `neighbours.pair`; `take_first` makes them from a mask."""


def take_first(neighbours: Neighbours, wanted: NDArray[np.bool_], k: int) -> Negatives:
    """Return the k nearest of the wanted neighbours (pairs, width); where there are fewer, weight 0."""
    wide = max(0, k - wanted.shape[1])
    order = np.argsort(~wanted, axis=1, kind="stable")[:, :k]

    def pick(values: np.ndarray, filler: float) -> np.ndarray:
        taken = np.take_along_axis(values, order, axis=1)
        return np.pad(taken, ((0, 0), (0, wide)), constant_values=filler)

    found = pick(wanted, 0)
    argument = np.where(found, pick(neighbours.argument, 0), neighbours.pair[:, None])
    rank, distance = np.where(found, pick(neighbours.rank, 0), 0), np.where(found, pick(neighbours.distance, 0), np.nan)
    return Negatives(argument, rank, found.astype(np.float32), distance)
