"""Neighbour indexes: find the arguments nearest to a point's retrieval embedding."""

from negexp.index.base import NeighbourIndex

__all__ = ["NeighbourIndex"]
