"""Neighbour indexes: which arguments are nearest to a point's retrieval embedding."""

from negexp.index.base import NeighbourIndex
from negexp.index.build import build_index

__all__ = ["NeighbourIndex", "build_index"]
