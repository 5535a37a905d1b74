"""How many queries, or seeds an arm, would show a difference."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from negexp.evaluation.statistics import LEVEL

POWER = 0.8


def would_be_seen(effect: float, half_width: float, variance: float) -> bool:
    """Return whether a difference of `effect` is seen with a power of 80 %, by an interval of that half-width.

    `variance` is that of the measured difference. With few seeds an interval is longer than a normal one.
    """
    return bool(half_width + norm.ppf(POWER) * np.sqrt(variance) <= effect)


class Needed(NamedTuple):
    """How many queries, or seeds an arm, would show a difference; None where no number would."""

    queries: int | None
    seeds: int | None


def needed_to_see(
    effect: float, query_variance: float, seed_variance: float, queries: int, seeds: tuple[int, int]
) -> Needed:
    """Return what it would take to see a difference of `effect` with a power of 80 % at the level of 5 %.

    Variances are those of the measured difference; that of the queries falls with their number, that of the seeds with
    theirs, and more of the one does not help where the other alone is too large. A seed variance of NaN is not known:
    the queries are counted as if seeds did not vary, the seeds not at all.
    """
    known, seed_variance = not np.isnan(seed_variance), float(np.nan_to_num(seed_variance))
    target = (effect / (norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER))) ** 2
    more_queries = int(np.ceil(queries * query_variance / (target - seed_variance))) if target > seed_variance else None
    if target <= query_variance or not known:
        return Needed(more_queries, None)
    per_seed = seed_variance / (1 / seeds[0] + 1 / seeds[1])
    return Needed(more_queries, max(1, int(np.ceil(2 * per_seed / (target - query_variance)))))
