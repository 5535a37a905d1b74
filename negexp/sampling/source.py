"""Where the neighbours of a point come from: by default, the retrieval embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from negexp.corpus.argument_numbers import TABLES, ArgumentNumbers

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK_NUMBERS = 2**22  # float64 numbers in a block of differences


class Source(Protocol):
    """The neighbours of the pairs' points, with distances of its own: lower is nearer."""

    @property
    def positive_distance(self) -> Floats:
        """Return the distance of each point to its own counter (pairs,)."""
        ...

    def search(self, table: str, pair: Ints, k: int) -> tuple[Floats, Ints]:
        """Return distances and rows (pairs, k) of the nearest in a table, nearest first; ties in the order of rows."""
        ...

    def distance(self, pair: Ints, argument: Ints) -> Floats:
        """Return the distances (pairs, k) from the pairs' points (pairs,) to arguments (pairs, k)."""
        ...

    def similarity(self, pair: Ints, argument: Ints) -> Floats:
        """Return the similarities (pairs, k) of the pairs' points (pairs,) and arguments (pairs, k)."""
        ...


class Index(Protocol):
    """The part of `negexp.index.base.NeighbourIndex` that an embedding space uses."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return distances and rows (queries, k) of the k nearest, nearest first; ties in the order of rows."""
        ...

    def statistics(self) -> dict[str, float]:
        """Return what the index knows of its searches so far, by names of columns."""
        ...


@dataclass(frozen=True)
class EmbeddingSpace:
    """Retrieval embeddings at the time of sampling, and the indexes over them, built on first use.

    query (pairs, dim): the points as queries. candidate: table -> (rows of the table, dim); `document` only where the
    corpus has a collection. build: vectors -> index. Distances are Euclidean.
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

    def statistics(self) -> dict[str, float]:
        """Return the statistics of the indexes, each a mean over the tables that were searched."""
        return means_by_name([index.statistics() for index in self._indexes.values()])

    @cached_property
    def positive_distance(self) -> Floats:
        """Return the distance of each point to its own counter (pairs,)."""
        pair = np.arange(len(self.query))
        return self.distance(pair, ArgumentNumbers(len(pair)).number("counter", pair[:, None]))[:, 0]

    def search(self, table: str, pair: Ints, k: int) -> tuple[Floats, Ints]:
        """Return distances and rows (pairs, k) of the nearest in a table, nearest first; ties in the order of rows."""
        return self.index(table).search(self.query[pair], k)

    def distance(self, pair: Ints, argument: Ints) -> Floats:
        """Return Euclidean distances (pairs, k) from points as queries to arguments (pairs, k)."""
        document = self.candidate.get("document", self.query[:0])
        numbers, dim = ArgumentNumbers(len(self.query), len(document)), self.query.shape[1]
        distances = np.empty(argument.shape)
        for some in blocks(len(pair), BLOCK_NUMBERS // (dim * max(1, argument.shape[1]))):
            row, is_counter = numbers.row(argument[some]), numbers.is_counter(argument[some])
            is_document = numbers.is_document(argument[some])
            vectors = self.candidate["point"][np.where(is_document, 0, row)]
            vectors[is_counter] = self.candidate["counter"][row[is_counter]]
            vectors[is_document] = document[row[is_document]]
            difference = vectors.astype(np.float64) - self.query[pair[some]][:, None]
            distances[some] = np.linalg.norm(difference, axis=2)
        return distances

    def similarity(self, pair: Ints, argument: Ints) -> Floats:
        """Return cosines (pairs, k) between points as queries and arguments (pairs, k); 0 where a vector is zero."""
        query, candidate = self._squared_lengths[0][pair][:, None], self._squared_lengths[1][argument]
        lengths = np.sqrt(query * candidate)
        return (query + candidate - self.distance(pair, argument) ** 2) / np.where(lengths > 0, 2 * lengths, np.inf)

    @cached_property
    def _squared_lengths(self) -> tuple[Floats, Floats]:
        """Return the squared lengths of the queries (pairs,) and of the arguments, in the order of their numbers."""
        query, *candidates = (
            np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
            for vectors in (self.query, *(self.candidate[table] for table in TABLES if table in self.candidate))
        )
        return query, np.concatenate(candidates)


def means_by_name(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each name over the parts that have it.

    >>> means_by_name([{"recall": 0.5}, {}, {"recall": 1.0}])
    {'recall': 0.75}
    """
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: float(np.mean([part[name] for part in parts if name in part])) for name in names}


def blocks(rows: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` rows, and of one row at least."""
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, rows, size))
