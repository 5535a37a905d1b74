"""Sampling: the candidates of each pair, the negatives chosen from them, and when. Works on arrays, without a model."""

from negexp.sampling.arguments import Arguments
from negexp.sampling.batch_plan import BatchPlan, BatchRound, batch_statistics
from negexp.sampling.forbidden import Forbidden
from negexp.sampling.negatives import Negatives, Neighbours
from negexp.sampling.policy import MiningPolicy
from negexp.sampling.round import SamplingRound
from negexp.sampling.sampler import NegativeSampler
from negexp.sampling.schedule import Schedule, ScheduledNumber
from negexp.sampling.source import EmbeddingSpace, Source

__all__ = [
    "Arguments",
    "BatchPlan",
    "BatchRound",
    "EmbeddingSpace",
    "Forbidden",
    "MiningPolicy",
    "NegativeSampler",
    "Negatives",
    "Neighbours",
    "SamplingRound",
    "Schedule",
    "ScheduledNumber",
    "Source",
    "batch_statistics",
]
