"""Training: the epoch loop, one epoch of steps, and checkpoints."""

from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.origin import Origin, training_pairs
from negexp.training.run import Start, Trained, train

__all__ = ["CheckpointStore", "Commit", "Origin", "Start", "Trained", "load_weights", "train", "training_pairs"]
