"""The nearest candidates of each query, and their order after the second stage; as `negexp evaluate` ranks them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.evaluation import Classifier, Combination
from negexp.index import NeighbourIndex
from negexp.search.candidates import Candidates

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Ranking(NamedTuple):
    """The best candidates of some queries, best first, all (queries, k).

    candidate: -1 where a query has no further one. distance: between the embeddings. combined: the score of the second
    stage, NaN where there is none.
    """

    candidate: Ints
    distance: Floats
    combined: Floats

    def first(self, k: int) -> Ranking:
        """Return the k best candidates of each query."""
        return Ranking(self.candidate[:, :k], self.distance[:, :k], self.combined[:, :k])


def nearest(index: NeighbourIndex, queries: np.ndarray, candidates: Candidates, k: int) -> Ranking:
    """Return the k nearest candidates of queries (queries, dim), without a query's own ones.

    `index` searches the embeddings of all candidates. Of equal distances, the lower candidate is first.
    """
    own = candidates.own
    distance, candidate = index.search(queries, min(k + own.shape[1], len(candidates)))
    dropped = (candidate[:, :, None] == own[:, None, :]).any(axis=2)
    order = np.argsort(dropped, axis=1, kind="stable")[:, :k]
    candidate, distance, none = (np.take_along_axis(values, order, axis=1) for values in (candidate, distance, dropped))
    candidate[none], distance[none] = -1, np.inf
    return Ranking(candidate, distance, np.full(distance.shape, np.nan))


def reranked(ranking: Ranking, k: int, classify: Classifier, combination: Combination) -> Ranking:
    """Return a ranking whose k nearest candidates are ordered by both scores; the others stay behind them.

    `classify` takes the numbers of queries and of candidates, and may take any candidate in the place of -1.
    """
    candidate, distance = ranking.candidate[:, :k], ranking.distance[:, :k]
    there = candidate >= 0
    log_odds = classify(np.arange(len(candidate)), np.maximum(candidate, 0))
    combined = combination(np.where(there, log_odds, -np.inf), -(distance**2))
    order = np.argsort(-combined, axis=1, kind="stable")
    result = Ranking(ranking.candidate.copy(), ranking.distance.copy(), ranking.combined.copy())
    result.candidate[:, :k] = np.take_along_axis(candidate, order, axis=1)
    result.distance[:, :k] = np.take_along_axis(distance, order, axis=1)
    result.combined[:, :k] = np.take_along_axis(np.where(there, combined, np.nan), order, axis=1)
    return result
