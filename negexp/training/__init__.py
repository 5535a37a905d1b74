"""Training: the epoch loop, one epoch of steps, and checkpoints."""

from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.loop import Progress, train
from negexp.training.origin import Origin, training_pairs

__all__ = ["CheckpointStore", "Commit", "Origin", "Progress", "load_weights", "train", "training_pairs"]
