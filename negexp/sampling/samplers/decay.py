"""For each pair independently: random with a probability that falls by a step per epoch, else hard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negexp.components import option
from negexp.config import SamplerConfig
from negexp.errors import InputError
from negexp.sampling.mixture import Mixture


@dataclass
class DecayOptions(SamplerConfig):
    """The first value, the step and the last value of the random rate."""

    start_rate: float = option("random rate in the first epoch", low=0, high=1)
    step: float = option("decrease of the rate per epoch", low=0)
    end_rate: float = option("lowest rate", low=0, high=1)

    def check(self) -> None:
        """Raise `InputError` if the rate would have to rise."""
        if self.start_rate < self.end_rate:
            raise InputError(
                f"sampler.start_rate={self.start_rate}: below sampler.end_rate={self.end_rate}; the rate falls, so "
                "start above it"
            )


class Decay(Mixture):
    """Random with probability max(end_rate, start_rate - step * progress), else hard."""

    Options = DecayOptions
    options: DecayOptions

    def random_rate(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return max(end_rate, start_rate - step * progress)."""
        return max(self.options.end_rate, self.options.start_rate - self.options.step * progress)
