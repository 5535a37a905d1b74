"""The base class of mining policies, which decide which neighbours of a point are hard negatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from negexp.config import MiningConfig
from negexp.sampling.forbidden import Forbidden, first_of_each_text
from negexp.sampling.negatives import Negatives, Neighbours
from negexp.sampling.round import SamplingRound
from negexp.sampling.source import BLOCK_NUMBERS, Floats, Ints, blocks

Mask = NDArray[np.bool_]


class MiningPolicy(ABC):
    """Base of all mining policies: a subclass selects negatives among the neighbours in `select`.

    `eligible` says which neighbours may be selected at all. Where fewer than `depth` of a point's neighbours are
    eligible, its search goes on, twice as deep each time, until there are enough or no more candidates.
    """

    Options: type[MiningConfig] = MiningConfig
    leaves_out: ClassVar[str] = "not eligible"  # why a pair has fewer than k negatives: its other candidates are this

    def __init__(self, options: MiningConfig) -> None:
        self.options = options

    def depth(self, round_: SamplingRound) -> int:
        """Return the number of eligible neighbours per point that `select` needs; k by default."""
        return round_.num_negatives

    def eligible(self, neighbours: Neighbours, round_: SamplingRound) -> Mask:
        """Return which neighbours may become negatives (pairs, width); by default all that are allowed."""
        return neighbours.allowed

    @abstractmethod
    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        """Return the negatives of `neighbours.pair`; `take_first` builds them from a mask.

        Here `neighbours.allowed` is true for eligible neighbours only.
        """

    def check_candidates(  # noqa: B027  # most policies have nothing to check
        self, forbidden: Forbidden, tables: tuple[str, ...], candidates: Ints, key: str
    ) -> None:
        """Raise `InputError` if the policy can never find a negative for some pair.

        Parameters
        ----------
        forbidden
            The forbidden arguments, and with them all arguments.
        tables
            The tables that are searched.
        candidates
            (pairs,) number of arguments that the policy can choose from, or with `sampler.exclude=[repeats]` of their
            texts. A number that is `needs` or more may be too low then, but stays at least that.
        key
            Key of the policy's section, for messages.
        """

    def needs(self) -> int:
        """Return how many candidates a pair must have for `check_candidates`; 0: any number."""
        return 0

    def why_fewer(self, round_: SamplingRound, pair: Ints) -> list[str]:
        """Return for each pair with fewer than k negatives what its other candidates are."""
        return [self.leaves_out] * len(pair)

    def mine(self, round_: SamplingRound, pair: Ints) -> Negatives:
        """Return the negatives of the given pairs."""
        return Negatives.join([part for place in round_.alike(pair) for part in self._search(round_, pair, place)])

    def _search(self, round_: SamplingRound, pair: Ints, place: Ints) -> Iterator[tuple[Ints, Negatives]]:
        """Yield places of pairs with their negatives, until all of the given places have been yielded."""
        needed = depth = self.depth(round_)
        while len(place):
            deeper = []
            for some in blocks(len(place), BLOCK_NUMBERS // depth):
                neighbours = round_.neighbours(pair[place[some]], depth)
                eligible = neighbours.allowed & self.eligible(neighbours, round_)
                counted = neighbours.allowed
                if round_.forbidden.repeats:
                    first = first_of_each_text(eligible, round_.arguments.identity[neighbours.argument])
                    counted, eligible = counted & (first | ~eligible), first
                no_more = neighbours.allowed.sum(axis=1) < depth
                done = no_more | (eligible.sum(axis=1) >= needed)
                if done.any():
                    found = Neighbours(*(values[done] for values in neighbours))
                    negatives = self.select(found._replace(allowed=eligible[done]), round_)
                    yield place[some][done], replace(negatives, dropped=_dropped(counted[done], negatives))
                deeper.append(place[some][~done])
            place, depth = np.concatenate(deeper), 2 * depth


def _dropped(counted: Mask, negatives: Negatives) -> Ints:
    """Return how many counted neighbours (pairs, width) are nearer than each negative, and no negatives (pairs, k).

    Where none was found, all count that are no negatives: the pair's search has come to its end.
    """
    rank, mined = negatives.neighbour_rank, negatives.found & negatives.mined
    # the neighbour of rank r stands in column r - 1: all nearer ones are there
    column = np.clip(rank - 1, 0, max(0, counted.shape[1] - 1))
    nearer = np.take_along_axis(counted.cumsum(axis=1) - counted, column, axis=1)
    nearer_taken = (mined[:, None, :] & (rank[:, None, :] < rank[:, :, None])).sum(axis=2)
    untaken = counted.sum(axis=1, keepdims=True) - mined.sum(axis=1, keepdims=True)
    dropped: Ints = np.where(mined, nearer - nearer_taken, untaken)
    return dropped


def take_first(neighbours: Neighbours, eligible: Mask, k: int) -> Negatives:
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


def take_drawn(neighbours: Neighbours, eligible: Mask, log_weight: Floats, round_: SamplingRound) -> Negatives:
    """Draw k eligible neighbours of each pair without replacement, with probabilities proportional to exp(log_weight).

    The k largest sums of log weight and Gumbel noise are such a draw (Kool, van Hoof and Welling 2019). So weights that
    are all too small for a float do no harm. If a pair has fewer than k, the rest has weight 0.

    Parameters
    ----------
    eligible, log_weight
        (pairs, width); a log weight is finite where a neighbour is eligible.
    """
    lot = np.where(eligible, log_weight + round_.rng.gumbel(size=eligible.shape), -np.inf)
    place = np.argsort(np.argsort(-lot, axis=1, kind="stable"), axis=1)
    return take_first(neighbours, eligible & (place < round_.num_negatives), round_.num_negatives)
