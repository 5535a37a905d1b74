"""What every neighbour index promises, and the part of it that does not depend on the backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.index.copies import Copies, find_copies
from negexp.signals import check_stop

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Candidates(NamedTuple):
    """What a backend found: pairs of a query and a distinct vector, sorted by query.

    query, vector: (pairs,). beyond: (queries,) squared distance that no vector which is missing is nearer than;
    infinite where none can matter.
    """

    query: Ints
    vector: Ints
    beyond: Floats


class NeighbourIndex(ABC):
    """Exact nearest neighbours by Euclidean distance.

    Arguments with one text have one embedding, so each distinct vector is searched once, for each distinct query.

    Parameters
    ----------
    vectors
        (arguments, dim), float32 or float64; kept, not copied, where no two are equal.
    block_bytes
        Memory for one block of vectors or distances.
    """

    slack: int  # vectors beyond k that a backend is asked for at first, so that it can be seen that no tie is missing

    def __init__(self, vectors: np.ndarray, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.copies: Copies = find_copies(vectors, block_bytes)
        self.vectors = self.copies.distinct(vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[Floats, Ints]:
        """Return distances and rows (queries, k) of the k nearest, nearest first, the lower row first among equals.

        A backend may break ties as it likes; here distances are computed anew from the vectors, one way for all
        backends, and a tie at the k-th place is widened until all of it is seen.
        """
        asked = find_copies(queries, self.block_bytes)
        distances, rows = self._search(asked.distinct(queries), k)
        return (distances, rows) if asked.none else (distances[asked.group], rows[asked.group])

    def _search(self, queries: np.ndarray, k: int) -> tuple[Floats, Ints]:
        rows_out = np.empty((len(queries), k), dtype=np.int64)
        distances_out = np.empty((len(queries), k))
        todo, width = np.arange(len(queries)), min(k + self.slack, len(self.vectors))
        while len(todo):
            open_ties = []
            block = self._block(k, width)
            for start in range(0, len(todo), block):
                check_stop()
                asked = todo[start : start + block]
                found = self._nearest(queries[asked], min(k, len(self.vectors)), width)
                squared, rows = self._k_nearest(queries[asked], found, k)
                closed = squared[:, -1] < found.beyond
                rows_out[asked[closed]] = rows[closed]
                distances_out[asked[closed]] = np.sqrt(squared[closed])
                open_ties.append(asked[~closed])
            todo, width = np.concatenate(open_ties), min(2 * width, len(self.vectors))
        return distances_out, rows_out

    def _block(self, k: int, width: int) -> int:
        """Return how many queries are searched at a time."""
        return max(1, self.block_bytes // (8 * width * (int(self.vectors.shape[1]) + 1)))

    def _k_nearest(self, queries: np.ndarray, found: Candidates, k: int) -> tuple[Floats, Ints]:
        """Return squared distances and rows (queries, k) of the k nearest candidates, copies and ties in order."""
        difference = self.vectors[found.vector].astype(np.float64) - queries[found.query]
        squared = np.einsum("ij,ij->i", difference, difference)
        pair, row = self.copies.expand(found.vector, at_most=k)
        query, squared = found.query[pair], squared[pair]
        order = np.lexsort((row, squared, query))
        first = np.searchsorted(query, np.arange(len(queries)))  # sorting moved nothing from query to query
        place = order[first[:, None] + np.arange(k)]
        return squared[place], row[place]

    @abstractmethod
    def _nearest(self, queries: np.ndarray, k: int, width: int) -> Candidates:
        """Return candidates that hold, of every query, at least `width` vectors or the k nearest and all their ties."""
