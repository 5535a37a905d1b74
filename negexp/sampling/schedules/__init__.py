"""Schedules, one per module."""
