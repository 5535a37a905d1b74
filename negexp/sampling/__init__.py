"""Sampling: the candidates of each pair, the negatives chosen from them, and when. Works on arrays, without a model."""

from negexp.sampling.arguments import Arguments
from negexp.sampling.forbidden import Forbidden
from negexp.sampling.negatives import Negatives, Neighbours
from negexp.sampling.policy import MiningPolicy
from negexp.sampling.round import EmbeddingSpace, SamplingRound
from negexp.sampling.sampler import NegativeSampler
from negexp.sampling.schedule import Schedule, ScheduledNumber

__all__ = [
    "Arguments",
    "EmbeddingSpace",
    "Forbidden",
    "MiningPolicy",
    "NegativeSampler",
    "Negatives",
    "Neighbours",
    "SamplingRound",
    "Schedule",
    "ScheduledNumber",
]
