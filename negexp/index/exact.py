"""Exact search by blocks of the full distance matrix, in torch, on the GPU where there is one."""

from __future__ import annotations

import numpy as np
import torch

from negexp.index.base import Floats, Ints, NeighbourIndex


class ExactIndex(NeighbourIndex):
    """Brute force in float64 matrix products; never holds more than `block_bytes` of distances."""

    def __init__(self, vectors: np.ndarray, block_bytes: int, device: torch.device) -> None:
        super().__init__(vectors, block_bytes)
        self.device = device if device.type != "mps" else torch.device("cpu")  # MPS has no float64
        self.table = torch.from_numpy(self.vectors).to(self.device)  # (arguments, dim)
        self.squared_norms = (self.table**2).sum(dim=1)  # (arguments,)

    def _nearest(self, queries: Floats, k: int) -> Ints:
        block = max(1, self.block_bytes // (8 * len(self.vectors)))
        found = []
        for part in torch.from_numpy(queries).split(block):
            # |q|^2 is the same for a whole row and left out
            distances = torch.addmm(self.squared_norms, part.to(self.device), self.table.T, alpha=-2)
            found.append(distances.topk(k, dim=1, largest=False, sorted=False).indices.cpu())
        rows: Ints = torch.cat(found).numpy()
        return rows
