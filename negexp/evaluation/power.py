"""Compute how many queries, or seeds per arm, are needed to detect a difference."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from negexp.evaluation.statistics import LEVEL

POWER = 0.8


def would_be_seen(effect: float, half_width: float, variance: float) -> bool:
    """Return whether an interval of that half-width detects a difference of `effect` with a power of 80 %.

    `variance` is the variance of the measured difference. With few seeds, intervals are longer than normal intervals.
    """
    return bool(half_width + norm.ppf(POWER) * np.sqrt(variance) <= effect)


class NeededSizes(NamedTuple):
    """Numbers of queries, or of seeds per arm, that detect a difference. None: no number is enough."""

    queries: int | None
    seeds: int | None


def needed_to_see(
    effect: float, query_variance: float, seed_variance: float, queries: int, seeds: tuple[int, int]
) -> NeededSizes:
    """Return the numbers that detect a difference of `effect` with a power of 80 % at the level of 5 %.

    Both variances are parts of the variance of the measured difference. One falls with the number of queries, the other
    with the number of seeds. More queries do not help when the seed variance alone is too large, and the reverse. NaN
    means that the seed variance is unknown. Then the number of queries assumes that seeds do not vary, and the number
    of seeds is None.
    """
    known, seed_variance = not np.isnan(seed_variance), float(np.nan_to_num(seed_variance))
    target = (effect / (norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER))) ** 2
    more_queries = int(np.ceil(queries * query_variance / (target - seed_variance))) if target > seed_variance else None
    if target <= query_variance or not known:
        return NeededSizes(more_queries, None)
    per_seed = seed_variance / (1 / seeds[0] + 1 / seeds[1])
    return NeededSizes(more_queries, max(1, int(np.ceil(2 * per_seed / (target - query_variance)))))
