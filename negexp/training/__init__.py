"""Training: the epoch loop, the optimizer steps of an epoch, and checkpoints."""

from negexp.training.checkpoint import CheckpointStore, Commit, load_weights
from negexp.training.provenance import Provenance, training_pairs
from negexp.training.run import StartingPoint, TrainingResult, train
from negexp.training.telling import tell_finished
from negexp.training.trained import TrainedRun, model_of

__all__ = [
    "CheckpointStore",
    "Commit",
    "Provenance",
    "StartingPoint",
    "TrainedRun",
    "TrainingResult",
    "load_weights",
    "model_of",
    "tell_finished",
    "train",
    "training_pairs",
]
