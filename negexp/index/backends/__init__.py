"""Neighbour indexes, one per module."""
