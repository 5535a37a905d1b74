"""The one method that a strategy implements, what it is given, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from negexp.config import SamplerConfig
from negexp.errors import InputError
from negexp.sampling.forbidden import Forbidden

Ints = NDArray[np.int64]
SOURCES = {"both": ("point", "counter"), "points": ("point",), "counters": ("counter",)}


class Index(Protocol):
    """What mining asks of a neighbour index."""

    def search(self, queries: np.ndarray, k: int) -> tuple[NDArray[np.float64], Ints]:
        """Return distances and rows (queries, k), nearest first, the lower row first among equals."""


@dataclass(frozen=True)
class Negatives:
    """The negatives of some pairs, nearest first where they were mined.

    argument (pairs, k): row r of table `point` is r, row r of table `counter` is n + r, n training pairs in all.
    neighbour_rank (pairs, k): place among all neighbours of the point (in the tables that `sampler.candidates` names)
    but itself, 1 = nearest, forbidden ones counted; 0 for a random draw.
    """

    argument: Ints
    neighbour_rank: Ints

    @property
    def mined(self) -> NDArray[np.bool_]:
        """Return whether each negative was mined rather than drawn at random (pairs, k)."""
        return self.neighbour_rank > 0


class SamplingRound:
    """One epoch's sampling: what is forbidden, the generators, and the two ways to get negatives.

    Parameters
    ----------
    indexes, queries
        Table name -> neighbour index, and the points' retrieval embeddings (pairs, dim); both None when the strategy
        said that it mines nothing in this epoch.
    """

    def __init__(
        self,
        epoch: int,
        num_negatives: int,
        candidates: str,
        forbidden: Forbidden,
        rng: np.random.Generator,
        indexes: Mapping[str, Index] | None = None,
        queries: np.ndarray | None = None,
    ) -> None:
        self.epoch = epoch
        self.num_negatives = num_negatives
        self.sources = SOURCES[candidates]
        self.forbidden = forbidden
        self.pairs = forbidden.pairs
        self.rng = rng
        self._indexes = indexes
        self._queries = queries

    @property
    def span(self) -> tuple[int, int]:
        """Return the lowest argument number among the candidates, and the highest + 1."""
        low = 0 if "point" in self.sources else self.pairs
        return low, 2 * self.pairs if "counter" in self.sources else self.pairs

    def draw(self, pair: Ints) -> Negatives:
        """Draw `num_negatives` different arguments for each given pair, uniformly over what is not forbidden.

        By rejection: what is forbidden, or already drawn for the pair, is drawn again. The caller has made sure, with
        `NegativeSampler.check_candidates`, that every pair has so many; without them this would not end.
        """
        low, high = self.span
        argument = np.full((len(pair), self.num_negatives), -1, dtype=np.int64)
        for column in range(self.num_negatives):
            todo = np.arange(len(pair))
            while len(todo):
                drawn = self.rng.integers(low, high, len(todo))
                wrong = self.forbidden.contains(pair[todo], drawn) | (argument[todo] == drawn[:, None]).any(axis=1)
                argument[todo[~wrong], column] = drawn[~wrong]
                todo = todo[wrong]
        return Negatives(argument, np.zeros_like(argument))

    def mine(self, pair: Ints) -> Negatives:
        """Return the `num_negatives` nearest arguments of each given pair's point that are not forbidden.

        Euclidean distance of retrieval embeddings; ties go to point before counter, then to the lower row.
        """
        if self._indexes is None or self._queries is None:
            raise RuntimeError("mine() was called in an epoch for which the strategy's mines() returned False")
        result = Negatives(*(np.empty((len(pair), self.num_negatives), dtype=np.int64) for _ in range(2)))
        # A table's nearest k + f, f of them forbidden, hold its nearest k that are allowed. Pairs with alike f are
        # searched together, so that one text with many copies does not widen the search for all.
        extra = np.max([self.forbidden.count(source)[pair] for source in self.sources], axis=0)
        width_class = np.ceil(np.log2(extra + 1)).astype(np.int64)
        for value in np.unique(width_class):
            chosen = np.flatnonzero(width_class == value)
            width = min(self.num_negatives + int(extra[chosen].max()), self.pairs)
            argument, rank = self._mine_nearest(pair[chosen], width)
            result.argument[chosen], result.neighbour_rank[chosen] = argument, rank
        return result

    def _mine_nearest(self, pair: Ints, width: int) -> tuple[Ints, Ints]:
        assert self._indexes is not None
        assert self._queries is not None
        found = [self._indexes[source].search(self._queries[pair], width) for source in self.sources]
        distance = np.concatenate([distances for distances, _ in found], axis=1)
        offsets = [self.pairs * (source == "counter") for source in self.sources]
        argument = np.concatenate([rows + offset for (_, rows), offset in zip(found, offsets, strict=True)], axis=1)
        order = np.lexsort((argument, distance), axis=1)  # ascending argument numbers are the order of ties
        argument = np.take_along_axis(argument, order, axis=1)
        rank = np.cumsum(argument != pair[:, None], axis=1)  # the point itself has no place
        allowed = ~self.forbidden.contains(pair[:, None], argument)
        first = np.argsort(~allowed, axis=1, kind="stable")[:, : self.num_negatives]
        return np.take_along_axis(argument, first, axis=1), np.take_along_axis(rank, first, axis=1)


class NegativeSampler(ABC):
    """A sampling strategy: a subclass says in `choose` which negatives the pairs get in an epoch.

    The base class checks what comes in and what goes out, so that a strategy cannot leak a gold counter.
    """

    def __init__(self, config: SamplerConfig) -> None:
        self.config = config

    def random_rate(self, epoch: int) -> float:
        """Return the probability that a pair's negatives are drawn at random in this epoch."""
        return 0.0

    def refreshes(self, epoch: int) -> bool:
        """Return whether negatives are sampled anew in this epoch; else the last ones stay."""
        return epoch % self.config.refresh_every == 0

    def sampled_epoch(self, epoch: int) -> int:
        """Return the epoch in which the negatives of an epoch were sampled: the last one that refreshed them."""
        while epoch > 0 and not self.refreshes(epoch):
            epoch -= 1
        return epoch

    def mines(self, epoch: int) -> bool:
        """Return whether `choose` calls `mine` in this epoch, so that indexes must be built."""
        return self.random_rate(epoch) < 1

    @abstractmethod
    def choose(self, round_: SamplingRound) -> Negatives:
        """Return the negatives of all pairs, with the round's `mine` and `draw`."""

    def check_candidates(self, forbidden: Forbidden) -> None:
        """Raise `InputError` when some pair has fewer allowed arguments than `num_negatives`."""
        sources = SOURCES[self.config.candidates]
        allowed = sum(forbidden.pairs - forbidden.count(source) for source in sources)
        fewest = int(np.min(allowed))
        if fewest < self.config.num_negatives:
            raise InputError(
                f"sampler.num_negatives={self.config.num_negatives}: training pair {int(np.argmin(allowed))} has "
                f"only {fewest} allowed candidates (sampler.candidates={self.config.candidates}); lower it or give "
                "more pairs"
            )

    def sample(self, round_: SamplingRound) -> Negatives:
        """Return the negatives of all pairs (pairs, num_negatives), checked."""
        negatives = self.choose(round_)
        expected = (round_.pairs, round_.num_negatives)
        name = f"{type(self).__name__}.choose"
        for field, values in (("argument", negatives.argument), ("neighbour_rank", negatives.neighbour_rank)):
            if values.shape != expected:
                raise ValueError(f"{name} returned {field} {values.shape}, not {expected}")
        low, high = round_.span
        if ((negatives.argument < low) | (negatives.argument >= high)).any():
            raise ValueError(
                f"{name} returned an argument outside of {low} .. {high - 1} "
                f"(sampler.candidates={self.config.candidates})"
            )
        ordered = np.sort(negatives.argument, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ValueError(f"{name} returned one argument twice for a pair")
        if round_.forbidden.contains(np.arange(round_.pairs)[:, None], negatives.argument).any():
            raise ValueError(f"{name} returned a forbidden argument")
        return negatives
