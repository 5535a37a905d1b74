"""Experiments that show which negatives a dense retriever should see, and when."""

__version__ = "0.2.0"
