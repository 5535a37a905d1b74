"""Neighbour indexes, one a module."""
