"""Sampling strategies, one a module."""
