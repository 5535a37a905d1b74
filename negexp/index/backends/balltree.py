"""scikit-learn's BallTree (Omohundro 1989), the index of the original experiments."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import BallTree

from negexp.config import IndexConfig
from negexp.index.base import Candidates, NeighbourIndex

if TYPE_CHECKING:
    import torch

# A tree computes distances in float64, in its own order: so much less, relative to the largest squared norm, than what
# it says.
ROUNDING = 1e-9


class BallTreeIndex(NeighbourIndex):
    """A tree of nested balls; `leaf_size` is where it turns to brute force. Queries are shared out among `threads`."""

    @classmethod
    def from_options(cls, options: IndexConfig, vectors: np.ndarray, device: torch.device, threads: int) -> Self:
        """Return an index that searches with so many threads."""
        return cls(vectors, options.block_bytes, options.leaf_size, threads)

    def __init__(self, vectors: np.ndarray, block_bytes: int, leaf_size: int, threads: int = 1) -> None:
        super().__init__(vectors, block_bytes)
        self.threads = threads
        self.tree = BallTree(self.vectors, leaf_size=leaf_size)
        self.largest_norm = float((self.vectors.astype(np.float64) ** 2).sum(axis=1).max(initial=0.0))

    def _queries_at_a_time(self, k: int) -> int:
        return self.most_candidates // (k + 1)

    def _candidates(self, queries: np.ndarray, k: int) -> Candidates | None:
        """Ask for one vector more than k, and for twice as many while the last one may still tie with the k-th."""
        found = Candidates(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        rounding = ROUNDING * (1 + np.maximum((queries.astype(np.float64) ** 2).sum(axis=1), self.largest_norm))
        todo, width = np.arange(len(queries)), min(k + 1, len(self.vectors))
        while len(todo):
            if len(queries) > 1 and len(found.query) + len(todo) * width > self.most_candidates:
                return None
            distances, vectors = self._query(queries[todo], width)
            kth, last = distances[:, k - 1] ** 2, distances[:, -1] ** 2
            closed = (last - kth > 2 * rounding[todo]) | (width == len(self.vectors))
            query, vector = np.repeat(todo[closed], width), vectors[closed].ravel()
            found = Candidates(np.concatenate([found.query, query]), np.concatenate([found.vector, vector]))
            todo, width = todo[~closed], min(2 * width, len(self.vectors))
        order = np.argsort(found.query, kind="stable")
        return Candidates(found.query[order], found.vector[order])

    def _query(self, queries: np.ndarray, width: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        parts = np.array_split(queries, min(self.threads, len(queries)))
        with ThreadPoolExecutor(self.threads) as pool:  # the tree lets go of Python's lock
            found = list(pool.map(lambda part: self.tree.query(part, k=width), parts))
        distances, vectors = (np.concatenate(part) for part in zip(*found, strict=True))
        return distances, vectors
