"""What a strategy sees when negatives are sampled: neighbours with their metadata, distances, draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from negexp.sampling.arguments import TABLES, Arguments
from negexp.sampling.forbidden import Forbidden

if TYPE_CHECKING:
    from negexp.sampling.policy import MiningPolicy

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TABLES_OF = {"both": TABLES, "points": ("point",), "counters": ("counter",)}  # by `sampler.candidates`
DISTANCES_AT_A_TIME = 2**22  # numbers of float64


class Index(Protocol):
    """What a round asks of a neighbour index; see `negexp.index.base.NeighbourIndex`."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return distances and rows (queries, k) of the k nearest, nearest first, the lower row first among equals."""
        ...


@dataclass(frozen=True)
class Negatives:
    """The k negatives of some pairs, nearest first where they were mined.

    argument (pairs, k): see `Arguments`.
    neighbour_rank (pairs, k): place among all neighbours of the point but itself (in the tables that
    `sampler.candidates` names), 1 = nearest, forbidden ones counted; 0 for a random draw.
    weight (pairs, k): of each negative in the loss; 0 where none was found, so that the argument there has no meaning.
    distance (pairs, k): Euclidean, from the point as a query, in the embeddings they were sampled from; NaN where
    nobody computed it.
    """

    argument: Ints
    neighbour_rank: Ints
    weight: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))  # empty: all 1
    distance: Floats = field(default_factory=lambda: np.empty(0))  # empty: all NaN

    def __post_init__(self) -> None:
        shape = self.argument.shape
        if self.weight.shape == (0,):
            object.__setattr__(self, "weight", np.ones(shape, dtype=np.float32))
        if self.distance.shape == (0,):
            object.__setattr__(self, "distance", np.full(shape, np.nan))

    @property
    def mined(self) -> NDArray[np.bool_]:
        """Return whether each negative was mined rather than drawn at random (pairs, k)."""
        return self.neighbour_rank > 0

    @property
    def found(self) -> NDArray[np.bool_]:
        """Return whether there is a negative (pairs, k); a mining policy may leave fewer than k."""
        return self.weight > 0

    @classmethod
    def join(cls, parts: Sequence[tuple[Ints, Negatives]]) -> Negatives:
        """Return the negatives of all pairs from parts: (places, negatives of the pairs at these places)."""
        size = sum(len(place) for place, _ in parts)
        order = np.empty(size, dtype=np.int64)
        order[np.concatenate([place for place, _ in parts])] = np.arange(size)
        names = ("argument", "neighbour_rank", "weight", "distance")
        return cls(*(np.concatenate([getattr(part, name) for _, part in parts])[order] for name in names))


class Neighbours(NamedTuple):
    """The nearest arguments of some points, nearest first, ties in the order of argument numbers.

    pair (pairs,); argument, distance, rank (1 = nearest) and allowed (pairs, width). Rows end where no more was asked
    for: there `argument` is the pair's own point, `rank` 0, `distance` infinite and `allowed` false.
    """

    pair: Ints
    argument: Ints
    distance: Floats
    rank: Ints
    allowed: NDArray[np.bool_]


@dataclass(frozen=True)
class EmbeddingSpace:
    """Retrieval embeddings at the moment of sampling, and the indexes over them, built when first asked for.

    query (pairs, dim): the points as queries. candidate: table -> (pairs, dim). build: vectors -> index.
    """

    query: np.ndarray
    candidate: dict[str, np.ndarray]
    build: Callable[[np.ndarray], Index]

    def index(self, table: str) -> Index:
        """Return the neighbour index over a table."""
        if table not in self._indexes:
            self._indexes[table] = self.build(self.candidate[table])
        return self._indexes[table]

    @cached_property
    def _indexes(self) -> dict[str, Index]:
        return {}


class SamplingRound:
    """One refresh of the negatives: what a strategy and a mining policy can see, and the two ways to get negatives.

    Attributes
    ----------
    progress : epochs trained before this refresh, with a fraction within an epoch.
    num_negatives : k.
    arguments : the candidates with text, theme, debate and stance; `arguments.debate[pair]` is the pair's own.
    forbidden : which arguments may not be a pair's negative.
    validation : values of the monitored metric, one for each epoch so far.
    rng : the only source of randomness.
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
        self.num_negatives, self.tables = num_negatives, TABLES_OF[candidates]
        self.pairs = arguments.pairs
        self.progress = 0.0
        self.validation: Sequence[float] = ()

    def at(self, progress: float, validation: Sequence[float] = ()) -> SamplingRound:
        """Set when this round takes place, and return it."""
        self.progress, self.validation = progress, validation
        return self

    @property
    def span(self) -> tuple[int, int]:
        """Return the lowest candidate, and the highest + 1."""
        return self.arguments.table(self.tables[0]).start, self.arguments.table(self.tables[-1]).stop

    @cached_property
    def positive_distance(self) -> Floats:
        """Return the distance of each point to its own counter (pairs,)."""
        pair = np.arange(self.pairs)
        return self.distance(pair, self.arguments.number("counter", pair[:, None]))[:, 0]

    def distance(self, pair: Ints, argument: Ints) -> Floats:
        """Return Euclidean distances (pairs, k) of points as queries to arguments (pairs, k)."""
        found = np.empty(argument.shape)
        dim = self.space.query.shape[1]
        for some in _blocks(len(pair), DISTANCES_AT_A_TIME // (dim * max(1, argument.shape[1]))):
            row, is_counter = self.arguments.row(argument[some]), self.arguments.is_counter(argument[some])
            vectors = self.space.candidate["point"][row]
            vectors[is_counter] = self.space.candidate["counter"][row[is_counter]]
            difference = vectors.astype(np.float64) - self.space.query[pair[some]][:, None]
            found[some] = np.linalg.norm(difference, axis=2)
        return found

    def measured(self, negatives: Negatives) -> Negatives:
        """Return negatives of all pairs with their distances in this round's embeddings."""
        distance = self.distance(np.arange(self.pairs), negatives.argument)
        return replace(negatives, distance=np.where(negatives.found, distance, np.nan))

    def neighbours(self, pair: Ints, allowed: int) -> Neighbours:
        """Return the nearest arguments of each pair's point, up to the `allowed`-th that is not forbidden.

        A row has fewer allowed ones only where the tables have no more. Forbidden arguments in between are part of the
        answer; the point itself is not.
        """
        # A table's nearest k + f, f of them forbidden, hold its nearest k that are allowed.
        extra = np.max([self.forbidden.count(table)[pair] for table in self.tables], axis=0)
        width = min(allowed + int(extra.max(initial=0)), self.pairs)
        found = [self.space.index(table).search(self.space.query[pair], width) for table in self.tables]
        distance = np.concatenate([distances for distances, _ in found], axis=1)
        rows = [self.arguments.number(table, row) for table, (_, row) in zip(self.tables, found, strict=True)]
        argument = np.concatenate(rows, axis=1)
        order = np.lexsort((argument, distance), axis=1)
        argument, distance = (np.take_along_axis(values, order, axis=1) for values in (argument, distance))
        other = argument != pair[:, None]
        rank = np.cumsum(other, axis=1)
        free = ~self.forbidden.contains(pair[:, None], argument)
        known = other & (np.cumsum(free, axis=1) - free < allowed)  # beyond, a table may have nearer ones
        return _cut(Neighbours(pair, argument, distance, rank, free), known)

    def mine(self, pair: Ints, policy: MiningPolicy) -> Negatives:
        """Return the negatives that a policy selects from the neighbours of each given pair.

        Pairs with about the same number of forbidden arguments are searched together, so that one text with many
        copies does not widen the search for all.
        """
        extra = np.max([self.forbidden.count(table)[pair] for table in self.tables], axis=0)
        width_class = np.ceil(np.log2(extra + 1)).astype(np.int64)
        parts = []
        for value in np.unique(width_class):
            place = np.flatnonzero(width_class == value)
            found = self.neighbours(pair[place], policy.depth(self))
            parts.append((place, policy.select(found, self)))
        return Negatives.join(parts)

    def draw(self, pair: Ints) -> Negatives:
        """Draw `num_negatives` different arguments for each given pair, uniformly over what is not forbidden.

        By rejection: an argument that is forbidden, or already drawn for the pair, is drawn again. The caller has made
        sure, with `NegativeSampler.check_candidates`, that every pair has enough; otherwise this would not end.
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
        return Negatives(argument, np.zeros_like(argument), distance=self.distance(pair, argument))


def _cut(found: Neighbours, known: NDArray[np.bool_]) -> Neighbours:
    """Return the entries that are known, moved to the left, in arrays as wide as the longest row."""
    width = int(known.sum(axis=1).max(initial=0))
    order = np.argsort(~known, axis=1, kind="stable")[:, :width]
    there = np.take_along_axis(known, order, axis=1)

    def pick(values: np.ndarray, filler: np.ndarray | float) -> np.ndarray:
        return np.where(there, np.take_along_axis(values, order, axis=1), filler)

    return Neighbours(
        found.pair,
        pick(found.argument, found.pair[:, None]),
        pick(found.distance, np.inf),
        pick(found.rank, 0),
        pick(found.allowed, False),
    )


def _blocks(rows: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, rows, size))
