"""The bi-encoder with its pair classifier, and the loss that trains both."""

from negexp.model.bi_encoder import BiEncoder, PairClassifier, Role
from negexp.model.build import BuiltModel, build_model, restore_model, zero_shot_config
from negexp.model.losses import LossParts, TripletCrossEntropy

__all__ = [
    "BiEncoder",
    "BuiltModel",
    "LossParts",
    "PairClassifier",
    "Role",
    "TripletCrossEntropy",
    "build_model",
    "restore_model",
    "zero_shot_config",
]
