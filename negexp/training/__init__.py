"""Training: the epoch loop, one epoch of steps, and checkpoints."""

from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.provenance import Provenance, training_pairs
from negexp.training.run import Start, Trained, train

__all__ = ["CheckpointStore", "Commit", "Provenance", "Start", "Trained", "load_weights", "train", "training_pairs"]
