"""Schedules, one a module."""
