"""Batch plans, one per module."""
