"""The variance between the seeds of an arm, which adds to the uncertainty of a mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class SeedVariance(NamedTuple):
    """Variance between the seeds' means (cells,), the part that comes from the sample of queries, and its freedom."""

    between: Floats
    interaction: Floats
    freedom: float

    @property
    def net(self) -> Floats:
        """Return the variance (cells,) that the seeds add to the variance of the queries."""
        net: Floats = np.maximum(self.between - self.interaction, 0)
        return net

    def deviations(self, chi_square: Floats) -> Floats:
        """Return draws (draws, cells) of the standard deviation that the seeds add, from draws of chi^2(freedom)."""
        deviations: Floats = np.sqrt(np.maximum(self.freedom * self.between / chi_square - self.interaction, 0))
        return deviations

    def times(self, factor: Floats | float) -> SeedVariance:
        """Return the variance of the same means on another scale."""
        return SeedVariance(self.between * factor, self.interaction * factor, self.freedom)


def pool(parts: Sequence[SeedVariance]) -> SeedVariance:
    """Return the mean of variances, weighted by their degrees of freedom; 0 without any degree of freedom."""
    freedom = sum(part.freedom for part in parts)
    weights = [part.freedom / max(freedom, 1e-9) for part in parts]
    between = sum((weight * part.between for weight, part in zip(weights, parts, strict=True)), np.zeros(1))
    interaction = sum((weight * part.interaction for weight, part in zip(weights, parts, strict=True)), np.zeros(1))
    return SeedVariance(between, interaction, freedom)


def ratio(values: Floats, divisor: Floats) -> Floats:
    """Return values / divisor, 0 where the divisor is 0."""
    values, divisor = np.broadcast_arrays(values, divisor)
    ratio: Floats = np.divide(values, divisor, out=np.zeros(values.shape), where=divisor > 0)
    return ratio
