"""The interface of neighbour indexes, and the code that all backends share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from negexp.config import IndexConfig
from negexp.errors import InputError
from negexp.index.copies import Copies, find_copies
from negexp.signals import check_stop

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CANDIDATE_BYTES = 2**10  # memory for a candidate with its copies
DIFFERENCE_BYTES = 2**20  # size of a block of differences, small enough for the processor's cache


class Candidates(NamedTuple):
    """Candidates from a backend: pairs of a query and a distinct vector (pairs,), sorted by query."""

    query: Ints
    vector: Ints


class NeighbourIndex(ABC):
    """Nearest neighbours by Euclidean distance.

    Copies of a text have equal embeddings, so each distinct vector is searched once for each distinct query. A backend
    finds candidates. This class computes their distances and breaks ties, in the same way for all backends. The result
    is exact, unless the candidates of an approximate backend lack some; it then says its recall in `statistics`.

    Parameters
    ----------
    vectors
        (arguments, dim), float32 or float64. The index does not copy them if all are distinct.
    block_bytes
        Memory for one block of vectors or distances.

    Raises
    ------
    InputError
        When a vector, or later a query, is not finite.
    """

    Options: type[IndexConfig] = IndexConfig

    @classmethod
    @abstractmethod
    def from_options(cls, options: IndexConfig, vectors: np.ndarray, device: torch.device, threads: int) -> Self:
        """Return an index over vectors (arguments, dim) that computes on the given device or with the given threads."""

    def __init__(self, vectors: np.ndarray, block_bytes: int) -> None:
        check_finite(vectors)
        self.block_bytes = block_bytes
        self.copies: Copies = find_copies(vectors, block_bytes)
        self.vectors = self.copies.distinct(vectors)
        self.most_candidates: int = block_bytes // CANDIDATE_BYTES  # held at a time

    def search(self, queries: np.ndarray, k: int) -> tuple[Floats, Ints]:
        """Return distances and rows (queries, k) of the k nearest, nearest first; ties in the order of rows."""
        check_finite(queries)
        copies = find_copies(queries, self.block_bytes)
        distinct = copies.distinct(queries)
        squared, rows = np.empty((len(distinct), k)), np.empty((len(distinct), k), dtype=np.int64)
        block = max(1, self._queries_at_a_time(min(k, len(self.vectors))))
        for start in range(0, len(distinct), block):
            check_stop()
            some = slice(start, start + block)
            squared[some], rows[some] = self._search(distinct[some], k)
        distances = np.sqrt(squared, out=squared)
        return (distances, rows) if copies.all_distinct else (distances[copies.group], rows[copies.group])

    def statistics(self) -> dict[str, float]:
        """Return columns for refreshes.csv: what the index knows of its searches so far."""
        return {}

    def _search(self, queries: np.ndarray, k: int) -> tuple[Floats, Ints]:
        candidates = self._candidates(queries, min(k, len(self.vectors)))
        if candidates is None:
            halves = [self._search(half, k) for half in np.array_split(queries, 2)]
            squared, rows = (np.concatenate(parts) for parts in zip(*halves, strict=True))
            return squared, rows
        return self._k_nearest(queries, candidates, k)

    def _k_nearest(self, queries: np.ndarray, candidates: Candidates, k: int) -> tuple[Floats, Ints]:
        """Return squared distances and rows (queries, k) of the k nearest candidates, with their copies."""
        squared = self._squared_distances(queries, candidates)
        pair, row = self.copies.expand(candidates.vector, at_most=k)
        query, squared = candidates.query[pair], squared[pair]
        order = nearest_first(query, squared, row)
        first = np.searchsorted(query, np.arange(len(queries)))  # sorting kept candidates within their query
        place = order[first[:, None] + np.arange(k)]
        return squared[place], row[place]

    def _squared_distances(self, queries: np.ndarray, candidates: Candidates) -> Floats:
        """Return the squared distance of each candidate to its query, in float64."""
        exact, squared = queries.astype(np.float64), np.empty(len(candidates.query))
        block = max(1, DIFFERENCE_BYTES // exact[:1].nbytes)
        difference, other = (np.empty((min(len(squared), block), exact.shape[1])) for _ in range(2))
        for start in range(0, len(squared), block):
            some = slice(start, start + block)
            pairs = len(squared[some])
            difference[:pairs] = self.vectors[candidates.vector[some]]
            difference[:pairs] -= np.take(exact, candidates.query[some], axis=0, out=other[:pairs], mode="clip")
            np.einsum("ij,ij->i", difference[:pairs], difference[:pairs], out=squared[some])
        return squared

    @abstractmethod
    def _queries_at_a_time(self, k: int) -> int:
        """Return the number of queries in one call of `_candidates`."""

    @abstractmethod
    def _candidates(self, queries: np.ndarray, k: int) -> Candidates | None:
        """Return candidates that include the k nearest vectors of every query, and all ties of the k-th.

        An approximate backend may miss some of these, but returns at least k candidates of every query. Return None if
        there are more than `most_candidates`; for a single query, return them in any case.
        """


def nearest_first(query: Ints, squared: Floats, row: Ints) -> Ints:
    """Return np.lexsort((row, squared, query)) for sorted queries; faster if the rows of ties are sorted too."""
    order = np.argsort(squared, kind="stable")
    short = query.astype(np.min_scalar_type(query.max(initial=0)))  # NumPy sorts 16-bit integers by radix
    order = order[np.argsort(short[order], kind="stable")]
    sorted_distance, sorted_row = squared[order], row[order]
    tied = (query[1:] == query[:-1]) & (sorted_distance[1:] == sorted_distance[:-1])  # queries are sorted
    out_of_order = tied & (sorted_row[1:] < sorted_row[:-1])
    return np.lexsort((row, squared, query)) if out_of_order.any() else order


def check_finite(vectors: np.ndarray) -> None:
    """Refuse vectors (rows, dim) that are not finite."""
    if not np.isfinite(np.einsum("ij->", vectors, dtype=np.float64)):  # a sum needs no memory, a mask does
        raise InputError(
            "embeddings are not finite, so they have no nearest neighbours: the model diverged; lower trainer.lr, or "
            "set trainer.gradient_clip or trainer.precision=float32"
        )
