"""The bi-encoder with its pair classifier, and the loss that trains both."""

from negexp.model.bi_encoder import BiEncoder, PairClassifier, Role
from negexp.model.build import BuiltModel, build_model, restore_model, zero_shot_config
from negexp.model.losses import LossParts, TripletCrossEntropy
from negexp.model.pair_scores import PairScores

__all__ = [
    "BiEncoder",
    "BuiltModel",
    "LossParts",
    "PairClassifier",
    "PairScores",
    "Role",
    "TripletCrossEntropy",
    "build_model",
    "restore_model",
    "zero_shot_config",
]
