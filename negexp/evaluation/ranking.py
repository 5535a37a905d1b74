"""Ranks of the gold counter: first by distance, then after the pair classifier has ordered the k nearest candidates."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from negexp.corpus.arguments import Ints, Split
from negexp.evaluation.pools import PROTOCOLS, Pool, pools, possible_tasks
from negexp.largest import largest_columns
from negexp.progress import progress_bar
from negexp.signals import check_stop

STAGES = ("retrieval", "reranked")

# Both take texts as rows of `Corpus.texts`. A higher score is better.
Scorer = Callable[[Ints, Ints], NDArray[np.float64]]  # (queries,), (columns,) -> (queries, columns)
Classifier = Callable[[Ints, Ints], NDArray[np.float64]]  # (queries,), (queries, k) -> (queries, k)

# Scores that differ by less than this, relative to their size, are equal. Two texts with one embedding may get scores
# that differ by rounding, depending on their position in a matrix product. An equal score counts against the gold.
SCORE_TIE = 1e-9  # float64 products
CLASSIFIER_TIE = 1e-6  # float32 products

TILE = 2048  # columns scored at a time
MOST_QUERIES = 1024
SCORE_BYTES = 24  # bytes per query and column: the score and the arrays derived from it
DIAGONAL = 64  # queries whose golds are scored at a time; only the diagonal of these scores is used


class StageScorers(NamedTuple):
    """The scorer of the first stage, and the classifier of the second; None: there is no second stage."""

    retrieval: Scorer
    classify: Classifier | None


class ScoredPool(NamedTuple):
    """The scores of a pool. The gold's scores are lowered by the tie width, so equal candidates stand above it.

    scores (queries, columns): -inf where a column is no candidate. nearest (queries, k): the columns with the highest
    scores, best first. classifier_scores (queries, k): the classifier's scores of these columns. Without a classifier,
    k is 0.
    """

    scores: NDArray[np.float64]
    nearest: Ints
    classifier_scores: NDArray[np.float64]


class RankedBlock(NamedTuple):
    """One stage of a block of queries (queries,): rows of the split, gold ranks, numbers of candidates, first texts."""

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
        Limit for the memory of the scores, in bytes.

    Returns
    -------
    DataFrame
        `query` (id), `protocol`, `stage`, `task`, `rank` (1 = gold first), `candidates`, `first` (id of the argument
        that was ranked first, see `argument_ids`) and `row` (of the split). In the stage `reranked`, candidates beyond
        the `rerank_k` nearest keep their retrieval order and stand behind them.
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
                order = np.argsort(row)  # the same order of rows for all block sizes
                cells.append(
                    ((protocol, stage, task.name), RankedBlock(row[order], *(column[order] for column in values)))
                )
            bar.update()
    return _table(split, cells)


def _table(split: Split, cells: list[tuple[tuple[str, str, str], RankedBlock]]) -> pd.DataFrame:
    """Return the ranks of all (protocol, stage, task) as one table, in the given order."""
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
    """Return the id of the first argument with each text: `theme/debate/pro01/counter`, counters before points."""
    ids: dict[int, str] = {}
    for part, texts in (("counter", split.counter), ("point", split.point)):
        for id_, text in zip(split.ids, texts.tolist(), strict=True):
            ids.setdefault(text, f"{id_}/{part}")
    return ids


def score_pool(pool: Pool, scorers: StageScorers, k: int) -> ScoredPool:
    """Score the candidates of a pool and, with a classifier, score the k nearest once more."""
    scores = _lower_gold(
        np.where(pool.allowed, scorers.retrieval(pool.query_text, pool.text), -np.inf), pool.gold, SCORE_TIE
    )
    if scorers.classify is None:
        return ScoredPool(scores, np.empty((len(scores), 0), dtype=np.int64), np.empty((len(scores), 0)))
    nearest = largest_columns(scores, min(k, scores.shape[1]))
    return ScoredPool(scores, nearest, _classifier_scores(pool, nearest, scorers.classify)[0])


def ranking_order(scored: ScoredPool) -> Ints:
    """Return all columns (queries, columns), best first: the k nearest by classifier score, the rest by score."""
    order = np.argsort(-scored.scores, axis=1, kind="stable")
    by_classifier = np.argsort(-scored.classifier_scores, axis=1, kind="stable")
    order[:, : scored.nearest.shape[1]] = np.take_along_axis(scored.nearest, by_classifier, axis=1)
    return order


def _block(columns: int, block_bytes: int) -> int:
    """Return how many queries are ranked at a time, so that their scores in one tile fit into memory."""
    return max(1, min(MOST_QUERIES, block_bytes // (SCORE_BYTES * min(columns, TILE))))


def _rank_pool(pool: Pool, scorers: StageScorers, k: int) -> list[RankedBlock]:
    """Rank a pool by score and, with a classifier, again after re-ranking. Columns are scored tile by tile."""
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
    """Return the best score (queries,) among each query's gold and its copies."""
    query, text = pool.gold_texts()
    best = np.full(len(pool.query), -np.inf)
    for start in range(0, len(query), DIAGONAL):
        some = query[start : start + DIAGONAL]
        np.maximum.at(best, some, score(pool.query_text[some], text[start : start + DIAGONAL]).diagonal())
    return best


class Top(NamedTuple):
    """Scores and columns (queries, k) of the best columns so far, best first. The lower of equal columns is first."""

    score: NDArray[np.float64]
    column: Ints

    def merged(self, scores: NDArray[np.float64], start: int, k: int) -> Top:
        """Return the k best of these columns and a tile of scores (queries, columns) that starts at `start`."""
        if self.score.shape[1] < k:
            columns = largest_columns(scores, min(k, scores.shape[1]))
            return self._with(np.take_along_axis(scores, columns, axis=1), start + columns, k)
        # only columns better than the present last one can enter; after a few tiles there are hardly any
        query, column = np.divmod(np.flatnonzero(scores > self.score[:, -1:]), scores.shape[1])
        queries, row = np.unique(query, return_inverse=True)
        if len(queries):
            place = (
                np.arange(len(query)) - np.searchsorted(query, queries)[row]
            )  # position among the query's better columns
            shape = len(queries), int(place.max()) + 1
            better, columns = np.full(shape, -np.inf), np.zeros(shape, dtype=np.int64)
            better[row, place], columns[row, place] = scores[query, column], start + column
            merged = Top(self.score[queries], self.column[queries])._with(better, columns, k)
            self.score[queries], self.column[queries] = merged
        return self

    def _with(self, score: NDArray[np.float64], column: Ints, k: int) -> Top:
        """Return the k best of these columns and of columns with higher numbers."""
        score, column = np.concatenate([self.score, score], axis=1), np.concatenate([self.column, column], axis=1)
        order = np.argsort(-score, axis=1, kind="stable")[:, :k]
        return Top(np.take_along_axis(score, order, axis=1), np.take_along_axis(column, order, axis=1))


def _rerank(pool: Pool, top: Top, rank: Ints, candidates: Ints, classify: Classifier) -> RankedBlock:
    """Order the nearest columns by the classifier. A gold that is not among them keeps its rank."""
    classifier_scores, is_gold = _classifier_scores(pool, top.column, classify)
    competes, texts = classifier_scores > -np.inf, pool.text[top.column]
    gold_score = np.max(classifier_scores, axis=1, where=is_gold, initial=-np.inf, keepdims=True)
    above = competes & ~is_gold & (classifier_scores >= gold_score)
    first = np.where(is_gold & above.any(axis=1, keepdims=True), -np.inf, classifier_scores).argmax(axis=1)
    reranked = np.where(is_gold.any(axis=1), 1 + above.sum(axis=1), rank)
    return RankedBlock(pool.query, reranked, candidates, np.take_along_axis(texts, first[:, None], axis=1)[:, 0])


def _classifier_scores(pool: Pool, columns: Ints, classify: Classifier) -> tuple[NDArray[np.float64], np.ndarray]:
    """Return the classifier's scores of the given columns (queries, k), and whether each column is gold.

    The gold's score is lowered by the tie width. A column that is no candidate gets -inf.
    """
    allowed = columns != pool.excluded[:, None]
    is_gold = allowed & (pool.identity[columns] == pool.gold_identity[:, None])
    classifier_scores = np.where(allowed, classify(pool.query_text, pool.text[columns]), -np.inf)
    return _lower_gold(classifier_scores, is_gold, CLASSIFIER_TIE), is_gold


def _lower_gold(values: NDArray[np.float64], gold: np.ndarray, tie: float) -> NDArray[np.float64]:
    """Give every copy of the gold the best copy's value, lowered by the tie width."""
    best = np.max(values, axis=1, where=gold, initial=-np.inf, keepdims=True)
    return np.where(gold, _lowered(best, tie), values)


def _lowered(best: NDArray[np.float64], tie: float) -> NDArray[np.float64]:
    return best - tie * (1 + np.abs(best))


def squared_distance_scorer(queries: np.ndarray, candidates: np.ndarray, rows: Ints | None = None) -> Scorer:
    """Return a scorer that computes the negative squared Euclidean distance.

    Text t has the vector in row t of `queries` and `candidates` (texts, dim); with `rows`, in row `rows[t]`. Products
    are computed in float64, because the differences between neighbours are small compared with the norms.
    """
    wide, tall = queries.astype(np.float64), candidates.astype(np.float64)
    # two extra dimensions hold the norms: |q|^2 * -1 and 1 * -|c|^2
    left = np.column_stack([2 * wide, -(wide**2).sum(axis=1), np.ones(len(wide))])
    right = np.column_stack([tall, np.ones(len(tall)), -(tall**2).sum(axis=1)])

    def score(query: Ints, candidate: Ints) -> NDArray[np.float64]:
        if rows is not None:
            query, candidate = rows[query], rows[candidate]
        scores: NDArray[np.float64] = left[query] @ right[candidate].T
        return scores

    return score
