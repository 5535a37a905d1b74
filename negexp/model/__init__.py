"""The bi-encoder with its pair classifier, and what a loss sees of a batch."""

from negexp.model.bi_encoder import BiEncoder, PairClassifier, Role
from negexp.model.build import BuiltModel, build_model, restore_model, zero_shot_config
from negexp.model.loss import Embedded, Loss, TextBatch
from negexp.model.pair_scores import PairScores

__all__ = [
    "BiEncoder",
    "BuiltModel",
    "Embedded",
    "Loss",
    "PairClassifier",
    "PairScores",
    "Role",
    "TextBatch",
    "build_model",
    "restore_model",
    "zero_shot_config",
]
