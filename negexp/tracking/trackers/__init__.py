"""Trackers, one per module. `negexp.tracking.recorder` writes the run folder itself."""
