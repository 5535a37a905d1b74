"""scikit-learn's BallTree (Omohundro 1989), the index of the original experiments."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import BallTree

from negexp.index.base import Floats, Ints, NeighbourIndex


class BallTreeIndex(NeighbourIndex):
    """A tree of nested balls; `leaf_size` is where it turns to brute force."""

    def __init__(self, vectors: np.ndarray, block_bytes: int, leaf_size: int) -> None:
        super().__init__(vectors, block_bytes)
        self.tree = BallTree(self.vectors, leaf_size=leaf_size)

    def _nearest(self, queries: Floats, k: int) -> Ints:
        rows: Ints = self.tree.query(queries, k=k, return_distance=False, sort_results=False)
        return rows
