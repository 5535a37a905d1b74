"""Ranks of the gold counter: first by retrieval distance, then with the k nearest ordered by the pair classifier."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from negexp.corpus.arguments import Ints, Split
from negexp.evaluation.pools import PROTOCOLS, Pool, pools, possible_tasks
from negexp.progress import progress_bar
from negexp.signals import check_stop

STAGES = ("retrieval", "reranked")

# Both take texts as rows of `Corpus.texts`; higher is better.
Scorer = Callable[[Ints, Ints], NDArray[np.float64]]  # (queries,), (columns,) -> (queries, columns)
Classifier = Callable[[Ints, Ints], NDArray[np.float64]]  # (queries,), (queries, k) -> (queries, k)

# Scores closer than this, relative to their size, are equal: two texts with one embedding may differ by rounding,
# depending on where in a matrix product they stand. An equal score counts against the gold.
SCORE_TIE = 1e-9  # float64 products
CLASSIFIER_TIE = 1e-6  # float32 products

TILE = 2048  # columns that are scored at a time
MOST_QUERIES = 1024
SCORE_BYTES = 24  # of a query and a column: the score, and what is derived from it
DIAGONAL = 64  # queries whose golds are scored at a time, of which a diagonal is kept


class StageScorers(NamedTuple):
    """The scorer of the first stage, and the classifier of the second; None: there is no second stage."""

    retrieval: Scorer
    classify: Classifier | None


class ScoredPool(NamedTuple):
    """What a pool is ordered by, with the gold lowered by the tie width: what equals it stands above it.

    scores (queries, columns): -inf where a column is no candidate. nearest (queries, k): the columns of the highest
    scores, best first; opinion (queries, k): the classifier's of them. k is 0 without a classifier.
    """

    scores: NDArray[np.float64]
    nearest: Ints
    opinion: NDArray[np.float64]


class RankedBlock(NamedTuple):
    """Of one stage, for a block of queries (queries,): rows of the split, rank of the gold, candidates, first text."""

    row: Ints
    rank: Ints
    candidates: Ints
    first: Ints


def rank_queries(
    split: Split,
    scorers: StageScorers,
    rerank_k: int,
    block_bytes: int,
    queries: Ints | None = None,
    progress: str = "never",
) -> pd.DataFrame:
    """Rank every query of the split (or the given rows) in every task that its metadata allows.

    Parameters
    ----------
    rerank_k
        Number of nearest candidates that the pair classifier orders.
    block_bytes
        Limit for the scores that are held at a time.

    Returns
    -------
    DataFrame
        `query` (id), `protocol`, `stage`, `task`, `rank` (1 = gold first), `candidates`, `first` (id of the argument
        that was ranked first, see `argument_ids`) and `row` (of the split). In `reranked` the candidates beyond
        `rerank_k` keep their retrieval order behind the k.
    """
    queries = np.arange(len(split)) if queries is None else queries
    cells: list[tuple[tuple[str, str, str], RankedBlock]] = []
    rounds = list(itertools.product(PROTOCOLS, possible_tasks(split)[0]))
    with progress_bar(len(rounds), "evaluating", "task", progress) as bar:
        for protocol, task in rounds:
            blocks = [
                _rank_pool(part, scorers, rerank_k)
                for pool in pools(split, task, protocol, queries)
                for part in pool.parts(_block(len(pool.text), block_bytes))
            ]
            for stage, parts in zip(STAGES, zip(*blocks, strict=True), strict=False):
                row, *values = (np.concatenate(column) for column in zip(*parts, strict=True))
                order = np.argsort(row)  # one row order whatever the blocks were
                cells.append(
                    ((protocol, stage, task.name), RankedBlock(row[order], *(column[order] for column in values)))
                )
            bar.update()
    return _table(split, cells)


def _table(split: Split, cells: list[tuple[tuple[str, str, str], RankedBlock]]) -> pd.DataFrame:
    """Return the ranks of all (protocol, stage, task) as one table, in their order."""
    id_of = argument_ids(split)
    first_id = np.array([id_of.get(text, "") for text in range(max(id_of) + 1)], dtype=object)
    keys, tables = zip(*cells, strict=True)
    row, rank, candidates, first = (np.concatenate(column) for column in zip(*tables, strict=True))
    names = np.repeat(np.array(keys, dtype=object), [len(block.row) for block in tables], axis=0)
    return pd.DataFrame(
        {
            "query": np.array(split.ids, dtype=object)[row],
            **dict(zip(("protocol", "stage", "task"), names.T, strict=True)),
            "rank": rank,
            "candidates": candidates,
            "first": first_id[first],
            "row": row,
        }
    )


def argument_ids(split: Split) -> dict[int, str]:
    """Return text -> id of the first argument that has it: `theme/debate/pro01/counter`, counters before points."""
    ids: dict[int, str] = {}
    for part, texts in (("counter", split.counter), ("point", split.point)):
        for id_, text in zip(split.ids, texts.tolist(), strict=True):
            ids.setdefault(text, f"{id_}/{part}")
    return ids


def score_pool(pool: Pool, scorers: StageScorers, k: int) -> ScoredPool:
    """Score the candidates of a pool and, with a classifier, ask it about the k nearest."""
    scores = _lower_gold(
        np.where(pool.allowed, scorers.retrieval(pool.query_text, pool.text), -np.inf), pool.gold, SCORE_TIE
    )
    if scorers.classify is None:
        return ScoredPool(scores, np.empty((len(scores), 0), dtype=np.int64), np.empty((len(scores), 0)))
    nearest = _top_columns(scores, min(k, scores.shape[1]))
    return ScoredPool(scores, nearest, _opinions(pool, nearest, scorers.classify)[0])


def ranking_order(scored: ScoredPool) -> Ints:
    """Return all columns (queries, columns) in their order, best first: the k nearest by opinion, the rest by score."""
    order = np.argsort(-scored.scores, axis=1, kind="stable")
    by_opinion = np.argsort(-scored.opinion, axis=1, kind="stable")
    order[:, : scored.nearest.shape[1]] = np.take_along_axis(scored.nearest, by_opinion, axis=1)
    return order


def _block(columns: int, block_bytes: int) -> int:
    """Return how many queries are ranked at a time: scores are held for so many, and one tile of the columns."""
    return max(1, min(MOST_QUERIES, block_bytes // (SCORE_BYTES * min(columns, TILE))))


def _rank_pool(pool: Pool, scorers: StageScorers, k: int) -> list[RankedBlock]:
    """Rank a pool by score and, with a classifier, once more after re-ranking; tile by tile of the columns."""
    score, classify = scorers
    lowered = _lowered(_gold_scores(pool, score), SCORE_TIE)
    top = Top(np.empty((len(pool.query), 0)), np.empty((len(pool.query), 0), dtype=np.int64))
    above = np.zeros(len(pool.query), dtype=np.int64)
    for start in range(0, len(pool.text), TILE):
        check_stop()
        tile = slice(start, start + TILE)
        scores = score(pool.query_text, pool.text[tile])
        own = np.flatnonzero((pool.excluded >= start) & (pool.excluded < start + scores.shape[1]))
        scores[own, pool.excluded[own] - start] = -np.inf
        copies = np.isin(pool.gold_identity, pool.identity[tile]).nonzero()[0]
        if len(copies):
            gold = pool.identity[tile] == pool.gold_identity[copies, None]
            scores[copies] = np.where(gold & (scores[copies] > -np.inf), lowered[copies, None], scores[copies])
        above += np.count_nonzero(scores > lowered[:, None], axis=1)
        top = top.merged(scores, start, 1 if classify is None else k)
    candidates = len(pool.text) - (pool.excluded >= 0)
    retrieval = RankedBlock(pool.query, 1 + above, candidates, pool.text[top.column[:, 0]])
    if classify is None:
        return [retrieval]
    return [retrieval, _rerank(pool, top, 1 + above, candidates, classify)]


def _gold_scores(pool: Pool, score: Scorer) -> NDArray[np.float64]:
    """Return the best score (queries,) of each query's gold and its copies."""
    query, text = pool.gold_texts()
    best = np.full(len(pool.query), -np.inf)
    for start in range(0, len(query), DIAGONAL):
        some = query[start : start + DIAGONAL]
        np.maximum.at(best, some, score(pool.query_text[some], text[start : start + DIAGONAL]).diagonal())
    return best


class Top(NamedTuple):
    """The best columns so far, best first, the lower first among equals: their scores, and which (queries, k)."""

    score: NDArray[np.float64]
    column: Ints

    def merged(self, scores: NDArray[np.float64], start: int, k: int) -> Top:
        """Return the k best of these and of a tile of scores (queries, columns) that begins at column `start`."""
        if self.score.shape[1] < k:
            columns = _top_columns(scores, min(k, scores.shape[1]))
            return self._with(np.take_along_axis(scores, columns, axis=1), start + columns, k)
        # a column further on must be better than the last to come in, and after a few tiles hardly one is
        query, column = np.divmod(np.flatnonzero(scores > self.score[:, -1:]), scores.shape[1])
        queries, row = np.unique(query, return_inverse=True)
        if len(queries):
            place = np.arange(len(query)) - np.searchsorted(query, queries)[row]  # of its query's, in column order
            shape = len(queries), int(place.max()) + 1
            better, columns = np.full(shape, -np.inf), np.zeros(shape, dtype=np.int64)
            better[row, place], columns[row, place] = scores[query, column], start + column
            merged = Top(self.score[queries], self.column[queries])._with(better, columns, k)
            self.score[queries], self.column[queries] = merged
        return self

    def _with(self, score: NDArray[np.float64], column: Ints, k: int) -> Top:
        """Return the k best of these and of columns further on."""
        score, column = np.concatenate([self.score, score], axis=1), np.concatenate([self.column, column], axis=1)
        order = np.argsort(-score, axis=1, kind="stable")[:, :k]
        return Top(np.take_along_axis(score, order, axis=1), np.take_along_axis(column, order, axis=1))


def _rerank(pool: Pool, top: Top, rank: Ints, candidates: Ints, classify: Classifier) -> RankedBlock:
    """Order the nearest by the classifier; a gold that is not among them keeps its rank."""
    opinion, is_gold = _opinions(pool, top.column, classify)
    competes, texts = opinion > -np.inf, pool.text[top.column]
    gold_opinion = np.max(opinion, axis=1, where=is_gold, initial=-np.inf, keepdims=True)
    above = competes & ~is_gold & (opinion >= gold_opinion)
    first = np.where(is_gold & above.any(axis=1, keepdims=True), -np.inf, opinion).argmax(axis=1)
    reranked = np.where(is_gold.any(axis=1), 1 + above.sum(axis=1), rank)
    return RankedBlock(pool.query, reranked, candidates, np.take_along_axis(texts, first[:, None], axis=1)[:, 0])


def _opinions(pool: Pool, columns: Ints, classify: Classifier) -> tuple[NDArray[np.float64], np.ndarray]:
    """Return the classifier's opinion of some columns (queries, k), and which of them are gold.

    The gold's is lowered by the tie width; what is no candidate gets -inf.
    """
    allowed = columns != pool.excluded[:, None]
    is_gold = allowed & (pool.identity[columns] == pool.gold_identity[:, None])
    opinion = np.where(allowed, classify(pool.query_text, pool.text[columns]), -np.inf)
    return _lower_gold(opinion, is_gold, CLASSIFIER_TIE), is_gold


def _lower_gold(values: NDArray[np.float64], gold: np.ndarray, tie: float) -> NDArray[np.float64]:
    """Give every copy of the gold the best one's value less the tie width."""
    best = np.max(values, axis=1, where=gold, initial=-np.inf, keepdims=True)
    return np.where(gold, _lowered(best, tie), values)


def _lowered(best: NDArray[np.float64], tie: float) -> NDArray[np.float64]:
    return best - tie * (1 + np.abs(best))


def _top_columns(scores: NDArray[np.float64], k: int) -> Ints:
    """Return the columns (queries, k) of the highest scores, best first, the lower column first among equals."""
    if k < scores.shape[1]:
        kth = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
        # the k best are those above the k-th score, and the lowest columns among those equal to it
        above = scores > kth
        equal = scores == kth
        room = k - above.sum(axis=1, keepdims=True)
        chosen = above | (equal & (np.cumsum(equal, axis=1) <= room))
        columns = np.nonzero(chosen)[1].reshape(len(scores), k)
    else:
        columns = np.broadcast_to(np.arange(k), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def squared_distance_scorer(queries: np.ndarray, candidates: np.ndarray, rows: Ints | None = None) -> Scorer:
    """Return a scorer by negative squared Euclidean distance.

    `queries` and `candidates` (texts, dim) are indexed by text; with `rows`, text t has vector `rows[t]`.
    Products are taken in float64: the differences between neighbours are small beside the norms.
    """
    wide, tall = queries.astype(np.float64), candidates.astype(np.float64)
    # the norms are two more dimensions: |q|^2 * -1 and 1 * -|c|^2
    left = np.column_stack([2 * wide, -(wide**2).sum(axis=1), np.ones(len(wide))])
    right = np.column_stack([tall, np.ones(len(tall)), -(tall**2).sum(axis=1)])

    def score(query: Ints, candidate: Ints) -> NDArray[np.float64]:
        if rows is not None:
            query, candidate = rows[query], rows[candidate]
        scores: NDArray[np.float64] = left[query] @ right[candidate].T
        return scores

    return score
