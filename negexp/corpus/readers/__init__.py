"""Corpus readers, one per module."""
