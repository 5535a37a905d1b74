"""Training: the epoch loop, one epoch of steps, and checkpoints."""

from negexp.training.checkpoint import CheckpointStore
from negexp.training.loop import Progress, train

__all__ = ["CheckpointStore", "Progress", "train"]
