"""From an index configuration to an index; a backend is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from negexp.config import IndexConfig
from negexp.index.base import NeighbourIndex

if TYPE_CHECKING:
    import torch


def build_index(vectors: np.ndarray, config: IndexConfig, device: torch.device, threads: int = 1) -> NeighbourIndex:
    """Return the index that `config.name` names over vectors (arguments, dim)."""
    if config.name == "balltree":
        from negexp.index.balltree import BallTreeIndex

        return BallTreeIndex(vectors, config.block_bytes, config.leaf_size, threads)
    from negexp.index.exact import ExactIndex

    return ExactIndex(vectors, config.block_bytes, device)
