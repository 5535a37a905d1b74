"""What every neighbour index promises, and the part of it that does not depend on the backend."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from negexp.signals import check_stop

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Backends round differently, so whether a candidate beyond the last returned one could tie with the k-th is decided
# with this much room, relative to the largest squared norm.
ROUNDING = 1e-9


class NeighbourIndex(ABC):
    """Exact nearest neighbours by Euclidean distance.

    Parameters
    ----------
    vectors
        (arguments, dim), float32 or float64.
    block_bytes
        Memory for one block of vectors or distances.
    """

    def __init__(self, vectors: np.ndarray, block_bytes: int) -> None:
        self.vectors: Floats = np.ascontiguousarray(vectors, dtype=np.float64)
        self.block_bytes = block_bytes
        self.largest_norm = float((self.vectors**2).sum(axis=1).max(initial=0.0))

    def search(self, queries: np.ndarray, k: int) -> tuple[Floats, Ints]:
        """Return distances and rows (queries, k) of the k nearest, nearest first, the lower row first among equals.

        A backend may break ties as it likes; here distances are computed anew from the vectors, one way for all
        backends, and a tie at the k-th place is widened until all of it is seen.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float64)
        rows_out = np.empty((len(queries), k), dtype=np.int64)
        distances_out = np.empty((len(queries), k))
        todo, width = np.arange(len(queries)), min(k + 1, len(self.vectors))
        while len(todo):
            open_ties = []
            block = max(1, self.block_bytes // (8 * width * self.vectors.shape[1]))
            for start in range(0, len(todo), block):
                check_stop()
                asked = todo[start : start + block]
                rows = self._nearest(queries[asked], width)
                squared = ((self.vectors[rows] - queries[asked][:, None]) ** 2).sum(axis=2)
                order = np.lexsort((rows, squared), axis=1)
                rows, squared = np.take_along_axis(rows, order, 1), np.take_along_axis(squared, order, 1)
                room = ROUNDING * (1 + np.maximum((queries[asked] ** 2).sum(axis=1), self.largest_norm))
                closed = (width == len(self.vectors)) | (squared[:, -1] - squared[:, k - 1] > room)
                rows_out[asked[closed]] = rows[closed, :k]
                distances_out[asked[closed]] = np.sqrt(squared[closed, :k])
                open_ties.append(asked[~closed])
            todo, width = np.concatenate(open_ties), min(2 * width, len(self.vectors))
        return distances_out, rows_out

    @abstractmethod
    def _nearest(self, queries: Floats, k: int) -> Ints:
        """Return the rows (queries, k) of the k nearest, in any order and with ties broken in any way."""
