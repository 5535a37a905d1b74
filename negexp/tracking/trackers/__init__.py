"""Trackers, one per module. Each imports its library when a run starts, never before."""
