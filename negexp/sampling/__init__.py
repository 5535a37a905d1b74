"""Which negatives a model sees, and when: strategies over arrays; no model and no torch in here."""

from negexp.sampling.base import Negatives, NegativeSampler, SamplingRound
from negexp.sampling.forbidden import Forbidden
from negexp.sampling.registry import build_sampler

__all__ = ["Forbidden", "NegativeSampler", "Negatives", "SamplingRound", "build_sampler"]
