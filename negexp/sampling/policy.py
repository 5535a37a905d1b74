"""The base class of mining policies, which decide which neighbours of a point are hard negatives."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from negexp.config import MiningConfig
from negexp.sampling.round import Negatives, Neighbours, SamplingRound


class MiningPolicy(ABC):
    """Base of all mining policies: a subclass selects negatives among the neighbours in `select`."""

    Options: type[MiningConfig] = MiningConfig

    def __init__(self, options: MiningConfig) -> None:
        self.options = options

    def depth(self, round_: SamplingRound) -> int:
        """Return the number of allowed neighbours per point that `select` needs; k by default."""
        return round_.num_negatives

    @abstractmethod
    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        """Return the negatives of `neighbours.pair`; `take_first` builds them from a mask."""


def take_first(neighbours: Neighbours, eligible: NDArray[np.bool_], k: int) -> Negatives:
    """Return the k nearest eligible neighbours (pairs, width); if a pair has fewer, the rest has weight 0."""
    missing_columns = max(0, k - eligible.shape[1])
    order = np.argsort(~eligible, axis=1, kind="stable")[:, :k]

    def pick(values: np.ndarray, filler: float) -> np.ndarray:
        taken = np.take_along_axis(values, order, axis=1)
        return np.pad(taken, ((0, 0), (0, missing_columns)), constant_values=filler)

    found = pick(eligible, 0)
    argument = np.where(found, pick(neighbours.argument, 0), neighbours.pair[:, None])
    rank, distance = np.where(found, pick(neighbours.rank, 0), 0), np.where(found, pick(neighbours.distance, 0), np.nan)
    return Negatives(argument, rank, found.astype(np.float32), distance)
