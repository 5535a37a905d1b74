"""The bi-encoder with its pair classifier, and the base class of losses."""

from negexp.model.bi_encoder import BiEncoder, PairClassifier, Role
from negexp.model.build import BuiltModel, build_model, quiet_transformers, restore_model, zero_shot_config
from negexp.model.cross_encoder import CrossEncoder, build_cross_encoder
from negexp.model.loss import Loss, TextBatch
from negexp.model.pair_scores import PairScores
from negexp.model.sequence_classifier import SequenceClassifier, load_sequence_classifier
from negexp.model.vectors import Vectors

__all__ = [
    "BiEncoder",
    "BuiltModel",
    "CrossEncoder",
    "Loss",
    "PairClassifier",
    "PairScores",
    "Role",
    "SequenceClassifier",
    "TextBatch",
    "Vectors",
    "build_cross_encoder",
    "build_model",
    "load_sequence_classifier",
    "quiet_transformers",
    "restore_model",
    "zero_shot_config",
]
