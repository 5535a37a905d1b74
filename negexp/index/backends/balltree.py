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

# Bound on the rounding error of the tree's squared distances (float64), relative to the largest squared norm.
ROUNDING = 1e-9


class BallTreeIndex(NeighbourIndex):
    """A tree of nested balls with brute force in leaves of `leaf_size`. Queries are divided among `threads`."""

    @classmethod
    def from_options(cls, options: IndexConfig, vectors: np.ndarray, device: torch.device, threads: int) -> Self:
        """Return an index that searches with the given threads."""
        return cls(vectors, options.block_bytes, options.leaf_size, threads)

    def __init__(self, vectors: np.ndarray, block_bytes: int, leaf_size: int, threads: int = 1) -> None:
        super().__init__(vectors, block_bytes)
        self.threads = threads
        self.tree = BallTree(self.vectors, leaf_size=leaf_size)
        self.largest_norm = float((self.vectors.astype(np.float64) ** 2).sum(axis=1).max(initial=0.0))

    def _queries_at_a_time(self, k: int) -> int:
        return self.most_candidates // (k + 1)

    def _candidates(self, queries: np.ndarray, k: int) -> Candidates | None:
        """Search k + 1 vectors; double this number for queries whose last vector may tie with the k-th."""
        candidates = Candidates(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        rounding = ROUNDING * (1 + np.maximum((queries.astype(np.float64) ** 2).sum(axis=1), self.largest_norm))
        todo, width = np.arange(len(queries)), min(k + 1, len(self.vectors))
        while len(todo):
            if len(queries) > 1 and len(candidates.query) + len(todo) * width > self.most_candidates:
                return None
            distances, vectors = self._query(queries[todo], width)
            kth, last = distances[:, k - 1] ** 2, distances[:, -1] ** 2
            closed = (last - kth > 2 * rounding[todo]) | (width == len(self.vectors))
            query, vector = np.repeat(todo[closed], width), vectors[closed].ravel()
            candidates = Candidates(
                np.concatenate([candidates.query, query]), np.concatenate([candidates.vector, vector])
            )
            todo, width = todo[~closed], min(2 * width, len(self.vectors))
        order = np.argsort(candidates.query, kind="stable")
        return Candidates(candidates.query[order], candidates.vector[order])

    def _query(self, queries: np.ndarray, width: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        parts = np.array_split(queries, min(self.threads, len(queries)))
        with ThreadPoolExecutor(self.threads) as pool:  # the tree releases Python's lock
            results = list(pool.map(lambda part: self.tree.query(part, k=width), parts))
        distances, vectors = (np.concatenate(part) for part in zip(*results, strict=True))
        return distances, vectors
