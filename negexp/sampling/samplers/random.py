"""Uniform draws among the arguments that are not forbidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from negexp.config import SamplerConfig
from negexp.errors import InputError
from negexp.sampling.negatives import Negatives
from negexp.sampling.round import SamplingRound
from negexp.sampling.sampler import NegativeSampler


@dataclass
class RandomOptions(SamplerConfig):
    """The options of all strategies; random draws do not depend on embeddings."""

    def check(self) -> None:
        """Raise `InputError` if a refresh waits for the embeddings to move."""
        if self.refresh.drift is not None:
            raise InputError(
                f"sampler.refresh.drift={self.refresh.drift}: sampler=random draws without embeddings; leave out drift"
            )


class Random(NegativeSampler):
    """Random negatives for every pair."""

    Options: type[SamplerConfig] = RandomOptions
    mines = False

    def random_rate(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return 1."""
        return 1.0

    def choose(self, round_: SamplingRound) -> Negatives:
        """Draw for every pair."""
        return round_.draw(np.arange(round_.pairs))
