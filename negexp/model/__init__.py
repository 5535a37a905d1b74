"""The bi-encoder with its pair classifier, and the base class of losses."""

from negexp.model.bi_encoder import BiEncoder, PairClassifier, Role
from negexp.model.build import BuiltModel, build_model, restore_model, zero_shot_config
from negexp.model.loss import Loss, TextBatch
from negexp.model.pair_scores import PairScores
from negexp.model.vectors import Vectors

__all__ = [
    "BiEncoder",
    "BuiltModel",
    "Loss",
    "PairClassifier",
    "PairScores",
    "Role",
    "TextBatch",
    "Vectors",
    "build_model",
    "restore_model",
    "zero_shot_config",
]
