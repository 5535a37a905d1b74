"""The data of one refresh of the negatives: neighbours with metadata, distances, random draws."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from negexp.sampling.arguments import Arguments
from negexp.sampling.forbidden import Forbidden
from negexp.sampling.negatives import Negatives, Neighbours
from negexp.sampling.source import EmbeddingSpace, Source

if TYPE_CHECKING:
    from negexp.sampling.policy import MiningPolicy
    from negexp.sampling.schedule import ScheduledNumber

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class SamplingRound:
    """One refresh of the negatives: the data for strategies and mining policies, with `mine` and `draw`.

    Attributes
    ----------
    progress : epochs trained before this refresh, with a fraction within an epoch.
    num_negatives : k.
    arguments : the candidates with text, theme, debate and stance; `arguments.debate[pair]` is the pair's own.
    forbidden : the arguments that must not be a negative of a pair.
    space : the embeddings. `Negatives.distance`, and so the ledger, has their distances.
    source : where neighbours come from, with distances of its own; the embeddings unless `sampler.source=bm25`.
    validation : value of the monitored metric for each finished epoch.
    rng : the generator for all random draws of the round.
    """

    def __init__(
        self,
        arguments: Arguments,
        forbidden: Forbidden,
        space: EmbeddingSpace,
        rng: np.random.Generator,
        *,
        num_negatives: int = 1,
        candidates: str = "both",
    ) -> None:
        self.arguments, self.forbidden, self.space, self.rng = arguments, forbidden, space, rng
        self.num_negatives, self.tables = num_negatives, arguments.candidate_tables(candidates)
        self.pairs = arguments.pairs
        self.progress = 0.0
        self.validation: Sequence[float] = ()
        self.source: Source = space

    def mining_from(self, source: Source | None) -> SamplingRound:
        """Set the source of neighbours, the embeddings if it is None, and return the round."""
        self.source = self.space if source is None else source
        return self

    def at(self, progress: float, validation: Sequence[float] = ()) -> SamplingRound:
        """Set `progress` and `validation`, and return the round."""
        self.progress, self.validation = progress, validation
        return self

    def wanting(self, num_negatives: int) -> SamplingRound:
        """Return the same round, with the same generator, for another number of negatives."""
        other = copy.copy(self)
        other.num_negatives = num_negatives
        return other

    def value(self, number: ScheduledNumber) -> float:
        """Return a number that follows a schedule, at this refresh."""
        return number.value(self.progress, self.validation)

    @property
    def span(self) -> tuple[int, int]:
        """Return the lowest candidate and the highest candidate + 1."""
        return self.arguments.table(self.tables[0]).start, self.arguments.table(self.tables[-1]).stop

    @property
    def positive_distance(self) -> Floats:
        """Return the distance of each point to its own counter (pairs,), as in `Neighbours.distance`."""
        return self.source.positive_distance

    @cached_property
    def _most_forbidden(self) -> Ints:
        """Return the number of arguments that are forbidden to each pair (pairs,), in the table with the most."""
        most: Ints = np.max([self.forbidden.count(table) for table in self.tables], axis=0)
        return most

    def is_candidate(self, argument: Ints) -> NDArray[np.bool_]:
        """Return whether each argument is in one of the tables that the round chooses from."""
        tables = [self.arguments.table(table) for table in self.tables]
        inside: NDArray[np.bool_] = np.any([(argument >= one.start) & (argument < one.stop) for one in tables], axis=0)
        return inside

    def distance(self, pair: Ints, argument: Ints) -> Floats:
        """Return distances (pairs, k) from points to arguments (pairs, k), as in `Neighbours.distance`."""
        return self.source.distance(pair, argument)

    def similarity(self, pair: Ints, argument: Ints) -> Floats:
        """Return similarities (pairs, k) of points and arguments (pairs, k): cosines, or BM25 scores of that source."""
        return self.source.similarity(pair, argument)

    def measured(self, negatives: Negatives) -> Negatives:
        """Return the negatives of all pairs, with their distances in this round's embeddings."""
        distance = self.space.distance(np.arange(self.pairs), negatives.argument)
        return replace(negatives, distance=np.where(negatives.found, distance, np.nan))

    def neighbours(self, pair: Ints, allowed: int) -> Neighbours:
        """Return the nearest arguments of each pair's point, until `allowed` of them are not forbidden.

        A row has fewer allowed arguments only if the tables have no more. The result includes forbidden arguments in
        between, but not the point itself.
        """
        # With f forbidden arguments in a table, its nearest k + f include its nearest k allowed arguments.
        width, numbers = allowed + int(self._most_forbidden[pair].max(initial=0)), self.arguments
        results = [self.source.search(table, pair, min(width, numbers.size(table))) for table in self.tables]
        distance = np.concatenate([distances for distances, _ in results], axis=1)
        rows = [numbers.number(table, row) for table, (_, row) in zip(self.tables, results, strict=True)]
        argument = np.concatenate(rows, axis=1)
        order = np.lexsort((argument, distance), axis=1)
        argument, distance = (np.take_along_axis(values, order, axis=1) for values in (argument, distance))
        other = argument != pair[:, None]
        rank = np.cumsum(other, axis=1)
        permitted = ~self.forbidden.contains(pair[:, None], argument)
        known = other & (np.cumsum(permitted, axis=1) - permitted < allowed)  # farther ones may be incomplete
        return _compact(Neighbours(pair, argument, distance, rank, permitted), known)

    def mine(self, pair: Ints, policy: MiningPolicy) -> Negatives:
        """Return the negatives that a policy selects among the neighbours of each given pair."""
        return policy.mine(self, pair)

    def alike(self, pair: Ints) -> Iterator[Ints]:
        """Yield the places of the pairs that should be searched together.

        They have a similar number of forbidden arguments. So a text with many copies widens the search for few pairs
        only.
        """
        width_class = np.ceil(np.log2(self._most_forbidden[pair] + 1)).astype(np.int64)
        for value in np.unique(width_class):
            yield np.flatnonzero(width_class == value)

    def draw(self, pair: Ints, taken: Ints | None = None) -> Negatives:
        """Draw `num_negatives` different arguments for each given pair, uniformly among its allowed arguments.

        `taken` (pairs, any number) are not drawn again.

        Forbidden and repeated arguments are rejected and drawn again. This ends only if every pair has enough allowed
        arguments, which `NegativeSampler.check_candidates` makes sure of.
        """
        low, high = self.span
        argument = np.full((len(pair), self.num_negatives), -1, dtype=np.int64)
        if taken is not None:
            argument = np.concatenate([taken, argument], axis=1)
        first = argument.shape[1] - self.num_negatives
        for column in range(first, argument.shape[1]):
            todo = np.arange(len(pair))
            while len(todo):
                drawn = self.rng.integers(low, high, len(todo))
                wrong = self.forbidden.contains(pair[todo], drawn) | self._has(argument[todo], drawn)
                wrong |= ~self.is_candidate(drawn)
                argument[todo[~wrong], column] = drawn[~wrong]
                todo = todo[wrong]
        argument = argument[:, first:]
        return Negatives(argument, np.zeros_like(argument), distance=self.space.distance(pair, argument))

    def _has(self, argument: Ints, drawn: Ints) -> NDArray[np.bool_]:
        """Return whether an argument (pairs,), or with `exclude: repeats` its text, is among others (pairs, k).

        -1 among the others is no argument.
        """
        same: NDArray[np.bool_] = argument == drawn[:, None]
        if self.forbidden.repeats:
            identity = self.arguments.identity
            same = (identity[argument] == identity[drawn][:, None]) & (argument >= 0)
        return np.asarray(same.any(axis=1))


def _compact(neighbours: Neighbours, known: NDArray[np.bool_]) -> Neighbours:
    """Return the known entries, moved to the left, in arrays as wide as the longest row."""
    width = int(known.sum(axis=1).max(initial=0))
    order = np.argsort(~known, axis=1, kind="stable")[:, :width]
    filled = np.take_along_axis(known, order, axis=1)

    def pick(values: np.ndarray, filler: np.ndarray | float) -> np.ndarray:
        return np.where(filled, np.take_along_axis(values, order, axis=1), filler)

    return Neighbours(
        neighbours.pair,
        pick(neighbours.argument, neighbours.pair[:, None]),
        pick(neighbours.distance, np.inf),
        pick(neighbours.rank, 0),
        pick(neighbours.allowed, False),
    )
