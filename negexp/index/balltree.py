"""scikit-learn's BallTree (Omohundro 1989), the index of the original experiments."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn.neighbors import BallTree

from negexp.index.base import Candidates, NeighbourIndex

# A tree computes distances in float64, in its own order: so much less, relative to the largest squared norm, than what
# it says.
ROUNDING = 1e-9


class BallTreeIndex(NeighbourIndex):
    """A tree of nested balls; `leaf_size` is where it turns to brute force. Queries are shared out among `threads`."""

    slack = 1

    def __init__(self, vectors: np.ndarray, block_bytes: int, leaf_size: int, threads: int = 1) -> None:
        super().__init__(vectors, block_bytes)
        self.threads = threads
        self.tree = BallTree(self.vectors, leaf_size=leaf_size)
        self.largest_norm = float((self.vectors.astype(np.float64) ** 2).sum(axis=1).max(initial=0.0))

    def _nearest(self, queries: np.ndarray, k: int, width: int) -> Candidates:
        with ThreadPoolExecutor(self.threads) as pool:  # the tree lets go of Python's lock
            parts = pool.map(
                lambda part: self.tree.query(part, k=width), np.array_split(queries, min(self.threads, len(queries)))
            )
            distances, vectors = (np.concatenate(found) for found in zip(*parts, strict=True))
        if width == len(self.vectors):
            beyond = np.full(len(queries), np.inf)
        else:
            norms = (queries.astype(np.float64) ** 2).sum(axis=1)
            beyond = distances[:, -1] ** 2 - ROUNDING * (1 + np.maximum(norms, self.largest_norm))
        return Candidates(np.repeat(np.arange(len(queries)), width), vectors.ravel(), beyond)
