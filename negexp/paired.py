"""Scores of pairs of texts, from a function that scores all combinations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DIAGONAL = 64  # pairs that are scored at a time; only the diagonal of these scores is used


def paired_scores(score: Callable[[Ints, Ints], Floats], query: Ints, candidate: Ints) -> Floats:
    """Return the score (pairs,) of each query's own candidate; `score` gives (queries, candidates).

    >>> paired_scores(np.subtract.outer, np.array([5, 7]), np.array([1, 2])).tolist()
    [4.0, 5.0]
    """
    found = np.empty(len(query))
    for start in range(0, len(query), DIAGONAL):
        some = slice(start, start + DIAGONAL)
        found[some] = score(query[some], candidate[some]).diagonal()
    return found
