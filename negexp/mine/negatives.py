"""The negatives of some pairs as texts and scores. It knows nothing of files and formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from negexp.sampling import Arguments, Negatives, SamplingRound

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MinedPair:
    """A point, its counter, and the negatives that were found, in the order of the strategy: mined ones nearest first.

    A score is the similarity that mining policies compare: a cosine, a BM25 score, or a score of a cross-encoder.
    query: the same number for all pairs of a query; None where each pair is a query of its own.
    """

    point: str
    counter: str
    negatives: list[str]
    counter_score: float
    negative_scores: list[float]
    query: int | None = None


@dataclass(frozen=True)
class MinedQuery:
    """A point with the counters of all its pairs and their negatives, each text once; text -> score.

    Texts are in the order of the pairs, and in that of the strategy within a pair.
    """

    point: str
    counters: dict[str, float]
    negatives: dict[str, float]


@dataclass(frozen=True)
class Scores:
    """The scores of the pairs' counters (pairs,) and of their negatives (pairs, k); NaN where there is no negative."""

    counter: Floats
    negative: Floats

    @classmethod
    def of(cls, round_: SamplingRound, negatives: Negatives) -> Scores:
        """Return the similarities of the round, of all pairs."""
        pair = np.arange(round_.pairs)
        own = round_.similarity(pair, round_.arguments.number("counter", pair[:, None]))[:, 0]
        found = negatives.found
        # where nothing was found, the pair's own counter is asked again: its score is known
        argument = np.where(found, negatives.argument, round_.arguments.number("counter", pair[:, None]))
        return cls(own, np.where(found, round_.similarity(pair, argument), np.nan))


def mined_pairs(texts: Sequence[str], arguments: Arguments, negatives: Negatives, scores: Scores) -> list[MinedPair]:
    """Return the pairs in their order, with the texts of points, counters and negatives."""
    every = np.arange(arguments.pairs)
    points, counters = (arguments.text[arguments.number(table, every)].tolist() for table in ("point", "counter"))
    rows, found = arguments.text[negatives.argument], negatives.found
    queries = [None] * len(every) if arguments.collection is None else arguments.collection.query.tolist()
    return [
        MinedPair(
            texts[point],
            texts[counter],
            [texts[row] for row in rows[pair][found[pair]]],
            float(scores.counter[pair]),
            scores.negative[pair][found[pair]].tolist(),
            query,
        )
        for pair, point, counter, query in zip(every, points, counters, queries, strict=True)
    ]


def mined_queries(pairs: Sequence[MinedPair]) -> list[MinedQuery]:
    """Return the queries of the pairs, in the order of their first pairs."""
    queries: dict[object, MinedQuery] = {}
    for number, pair in enumerate(pairs):
        key = ("pair", number) if pair.query is None else pair.query
        query = queries.setdefault(key, MinedQuery(pair.point, {}, {}))
        query.counters.setdefault(pair.counter, pair.counter_score)
        for text, score in zip(pair.negatives, pair.negative_scores, strict=True):
            query.negatives.setdefault(text, score)
    return list(queries.values())
