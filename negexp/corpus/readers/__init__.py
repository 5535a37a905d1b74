"""Corpus readers, one a module."""
