"""Trackers, one a module; the run folder itself is written by `negexp.tracking.recorder`."""
