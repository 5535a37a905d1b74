"""Sampling: which negatives a pair may have, which it gets, and when. Works on arrays; knows no model and no trainer."""

from negexp.sampling.arguments import Arguments
from negexp.sampling.forbidden import Forbidden
from negexp.sampling.policy import MiningPolicy
from negexp.sampling.round import EmbeddingSpace, Negatives, Neighbours, SamplingRound
from negexp.sampling.sampler import NegativeSampler
from negexp.sampling.schedule import Schedule

__all__ = [
    "Arguments",
    "EmbeddingSpace",
    "Forbidden",
    "MiningPolicy",
    "Negatives",
    "NegativeSampler",
    "Neighbours",
    "SamplingRound",
    "Schedule",
]
