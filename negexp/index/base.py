"""What every neighbour index promises, and the part of it that does not depend on the backend."""

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

CANDIDATE_BYTES = 2**10  # what a candidate may take, with its copies
DIFFERENCE_BYTES = 2**20  # of differences at a time, which so stay in the processor's cache


class Candidates(NamedTuple):
    """What a backend found: pairs of a query and a distinct vector (pairs,), sorted by query."""

    query: Ints
    vector: Ints


class NeighbourIndex(ABC):
    """Exact nearest neighbours by Euclidean distance.

    Arguments with one text have one embedding, so each distinct vector is searched once, for each distinct query. A
    backend finds candidates, breaking ties as it likes; their distances are computed anew, one way for all backends.

    Parameters
    ----------
    vectors
        (arguments, dim), float32 or float64; kept, not copied, where no two are equal.
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
        """Return an index over vectors (arguments, dim), computed on a device or by so many threads."""

    def __init__(self, vectors: np.ndarray, block_bytes: int) -> None:
        _check_finite(vectors)
        self.block_bytes = block_bytes
        self.copies: Copies = find_copies(vectors, block_bytes)
        self.vectors = self.copies.distinct(vectors)
        self.most_candidates: int = block_bytes // CANDIDATE_BYTES  # at a time

    def search(self, queries: np.ndarray, k: int) -> tuple[Floats, Ints]:
        """Return distances and rows (queries, k) of the k nearest, nearest first, the lower row first among equals."""
        _check_finite(queries)
        asked = find_copies(queries, self.block_bytes)
        distinct = asked.distinct(queries)
        squared, rows = np.empty((len(distinct), k)), np.empty((len(distinct), k), dtype=np.int64)
        block = max(1, self._queries_at_a_time(min(k, len(self.vectors))))
        for start in range(0, len(distinct), block):
            check_stop()
            some = slice(start, start + block)
            squared[some], rows[some] = self._search(distinct[some], k)
        distances = np.sqrt(squared, out=squared)
        return (distances, rows) if asked.none else (distances[asked.group], rows[asked.group])

    def _search(self, queries: np.ndarray, k: int) -> tuple[Floats, Ints]:
        found = self._candidates(queries, min(k, len(self.vectors)))
        if found is None:
            halves = [self._search(half, k) for half in np.array_split(queries, 2)]
            squared, rows = (np.concatenate(parts) for parts in zip(*halves, strict=True))
            return squared, rows
        return self._k_nearest(queries, found, k)

    def _k_nearest(self, queries: np.ndarray, found: Candidates, k: int) -> tuple[Floats, Ints]:
        """Return squared distances and rows (queries, k) of the k nearest candidates, copies and ties in order."""
        squared = self._squared_distances(queries, found)
        pair, row = self.copies.expand(found.vector, at_most=k)
        query, squared = found.query[pair], squared[pair]
        order = _order(query, squared, row)
        first = np.searchsorted(query, np.arange(len(queries)))  # sorting moved nothing from query to query
        place = order[first[:, None] + np.arange(k)]
        return squared[place], row[place]

    def _squared_distances(self, queries: np.ndarray, found: Candidates) -> Floats:
        """Return the squared distance of each candidate to its query, in float64."""
        exact, squared = queries.astype(np.float64), np.empty(len(found.query))
        block = max(1, DIFFERENCE_BYTES // exact[:1].nbytes)
        difference, other = (np.empty((min(len(squared), block), exact.shape[1])) for _ in range(2))
        for start in range(0, len(squared), block):
            some = slice(start, start + block)
            pairs = len(squared[some])
            difference[:pairs] = self.vectors[found.vector[some]]
            difference[:pairs] -= np.take(exact, found.query[some], axis=0, out=other[:pairs], mode="clip")
            np.einsum("ij,ij->i", difference[:pairs], difference[:pairs], out=squared[some])
        return squared

    @abstractmethod
    def _queries_at_a_time(self, k: int) -> int:
        """Return for how many queries candidates are to be found at a time."""

    @abstractmethod
    def _candidates(self, queries: np.ndarray, k: int) -> Candidates | None:
        """Return candidates that hold the k nearest vectors of every query, and all ties of the k-th.

        None says that they are more than `most_candidates`; for a single query they must be returned all the same.
        """


def _order(query: Ints, squared: Floats, row: Ints) -> Ints:
    """Return np.lexsort((row, squared, query)), of queries in order; faster, where ties have their rows in order."""
    order = np.argsort(squared, kind="stable")
    short = query.astype(np.min_scalar_type(query.max(initial=0)))  # of 16 bits NumPy sorts by radix
    order = order[np.argsort(short[order], kind="stable")]
    sorted_distance, sorted_row = squared[order], row[order]
    tied = (query[1:] == query[:-1]) & (sorted_distance[1:] == sorted_distance[:-1])  # queries were in order
    out_of_order = tied & (sorted_row[1:] < sorted_row[:-1])
    return np.lexsort((row, squared, query)) if out_of_order.any() else order


def _check_finite(vectors: np.ndarray) -> None:
    if not np.isfinite(np.einsum("ij->", vectors, dtype=np.float64)):  # a sum needs no memory, a mask of them does
        raise InputError(
            "embeddings are not finite, so nothing is nearest: the model diverged; lower trainer.lr, or set "
            "trainer.gradient_clip or trainer.precision=float32"
        )
