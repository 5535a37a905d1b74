"""The golds of a query in its ranking: their scores, the best one's rank, and nDCG with all of them.

A gold and its copies are one document. An equal score counts against a gold; golds with equal scores keep the order of
their columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.corpus.arguments import Ints

DEPTH = 10  # of nDCG@10: at most so many golds of a query count

# Scores that differ by less than this, relative to their size, are equal. An equal score counts against the gold.
SCORE_TIE = 1e-9


class GoldRanks(NamedTuple):
    """The best golds of some queries in one ranking, best first; at most DEPTH of each query.

    slot (queries, golds): places in the columns of `Golds`. rank (queries, golds). gain (queries, golds):
    grade divided by the DCG of the ideal ranking, 0 where a query has fewer golds.
    """

    slot: Ints
    rank: Ints
    gain: NDArray[np.float64]

    @property
    def best(self) -> Ints:
        """Return the rank of each query's best gold (queries,)."""
        return self.rank[:, 0]

    def ndcg(self) -> NDArray[np.float64]:
        """Return nDCG@10 (queries,), with linear gains as in trec_eval."""
        return dcg(self.gain, self.rank)


def discount(rank: np.ndarray) -> NDArray[np.float64]:
    """Return 1 / log2(1 + rank) down to rank 10, and 0 below (Järvelin and Kekäläinen 2002)."""
    return np.where(rank <= DEPTH, 1 / np.log2(1 + rank), 0.0)


def dcg(gain: NDArray[np.float64], rank: Ints) -> NDArray[np.float64]:
    """Return the discounted gains (queries,) of documents (queries, documents)."""
    total: NDArray[np.float64] = (gain * discount(rank)).sum(axis=1)
    return total


def gains(grade: Ints) -> NDArray[np.float64]:
    """Return each gold's grade (queries, golds), divided by the DCG@10 of the ideal ranking; 0 for the grade 0."""
    best_first = -np.sort(-grade, axis=1)
    ideal = dcg(best_first.astype(np.float64), np.broadcast_to(1 + np.arange(best_first.shape[1]), best_first.shape))
    return grade / np.where(ideal > 0, ideal, 1.0)[:, None]


def best_slots(scores: NDArray[np.float64], cells: tuple[Ints, Ints, Ints]) -> Ints:
    """Return the golds (queries, at most DEPTH) with the highest of the scores (queries, golds), best first.

    `cells` are query, gold and column of the golds and their copies; of golds with equal scores, the one with the lower
    first column comes first.
    """
    query, slot, column = cells
    first = np.full(scores.shape, np.iinfo(np.int64).max)
    np.minimum.at(first, (query, slot), column)
    return np.lexsort((first, -scores), axis=1)[:, :DEPTH]


def lower_golds(values: NDArray[np.float64], slot: Ints, tie: float) -> NDArray[np.float64]:
    """Give all copies of a gold the best copy's value, lowered by the tie width; values and slot (queries, columns)."""
    query, column = np.nonzero(slot >= 0)
    best = np.full((len(values), 1 + int(slot.max(initial=0))), -np.inf)
    np.maximum.at(best, (query, slot[query, column]), values[query, column])
    result = values.copy()
    result[query, column] = lowered(best, tie)[query, slot[query, column]]
    return result


def lowered(best: NDArray[np.float64], tie: float) -> NDArray[np.float64]:
    """Return scores lowered by the tie width, relative to their size."""
    return best - tie * (1 + np.abs(best))
