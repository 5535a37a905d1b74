"""Sampling strategies, one per module."""
