"""Random draws of the first epoch, kept for all epochs."""

from __future__ import annotations

from dataclasses import dataclass

from negexp.config import SamplerConfig
from negexp.errors import InputError
from negexp.sampling.samplers.random import Random


@dataclass
class StaticOptions(SamplerConfig):
    """The options of all strategies, without a refresh."""

    def check(self) -> None:
        """Raise `InputError` if a refresh within an epoch, or for drift, is configured."""
        if self.refresh.steps is not None:
            raise InputError(
                f"sampler.refresh.steps={self.refresh.steps}: sampler=static keeps its negatives; use sampler=random"
            )
        if self.refresh.drift is not None:
            raise InputError(
                f"sampler.refresh.drift={self.refresh.drift}: sampler=static keeps its negatives; leave out drift"
            )


class Static(Random):
    """Random negatives that never change."""

    Options: type[SamplerConfig] = StaticOptions

    def refreshes(self, epoch: int) -> bool:
        """Return whether this is the first epoch."""
        return epoch == 0
