"""scikit-learn's BallTree (Omohundro 1989), the index of the original experiments."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.neighbors import BallTree

from negexp.config import IndexConfig
from negexp.index.base import Floats, Ints
from negexp.index.widening import WideningIndex

if TYPE_CHECKING:
    import torch

# Bound on the rounding error of the tree's squared distances (float64), relative to the largest squared norm.
ROUNDING = 1e-9


class BallTreeIndex(WideningIndex):
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

    def _error(self, queries: np.ndarray) -> Floats:
        norms: Floats = (queries.astype(np.float64) ** 2).sum(axis=1)
        return ROUNDING * (1 + np.maximum(norms, self.largest_norm))

    def _nearest(self, queries: np.ndarray, k: int, width: int) -> tuple[Floats, Ints]:
        parts = np.array_split(queries, min(self.threads, len(queries)))
        with ThreadPoolExecutor(self.threads) as pool:  # the tree releases Python's lock
            results = list(pool.map(lambda part: self.tree.query(part, k=width), parts))
        distances, vectors = (np.concatenate(part) for part in zip(*results, strict=True))
        return distances**2, vectors
