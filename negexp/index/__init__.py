"""Neighbour indexes: which arguments are nearest to a point's retrieval embedding."""

from negexp.index.base import NeighbourIndex

__all__ = ["NeighbourIndex"]
