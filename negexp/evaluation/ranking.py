"""Ranks of the gold counter: first by distance, then after the re-ranker has ordered the k nearest candidates."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.config import EvaluationConfig
from negexp.corpus.arguments import Ints, Split
from negexp.evaluation.golds import GoldRanks, best_slots, gains, lower_golds, lowered
from negexp.evaluation.metrics import NDCG
from negexp.evaluation.pool import Pool
from negexp.evaluation.pools import PROTOCOLS, Task, pools, possible_tasks
from negexp.evaluation.second_stage import SCORE_TIE, Classifier, Combination, Shortlist
from negexp.evaluation.top import Top
from negexp.largest import largest_columns
from negexp.paired import paired_scores
from negexp.progress import progress_bar
from negexp.signals import check_stop

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("retrieval", "reranked")

# Takes texts as rows of `Corpus.texts`: (queries,), (columns,) -> (queries, columns). A higher score is better.
Scorer = Callable[[Ints, Ints], NDArray[np.float64]]

TILE = 2048  # columns scored at a time
MOST_QUERIES = 1024
SCORE_BYTES = 24  # bytes per query and column: the score and the arrays derived from it


class StageScorers(NamedTuple):
    """The scorer of the first stage, the re-ranker of the second (None: there is none), and how both are combined."""

    retrieval: Scorer
    classify: Classifier | None
    combination: Combination = Combination()


class ScoredPool(NamedTuple):
    """The scores of a pool. The golds' scores are lowered by the tie width, so equal candidates stand above them.

    scores (queries, columns): -inf where a column is no candidate. gold (queries, columns): see `Pool.gold`. nearest
    (queries, k): the columns with the highest scores, best first. combined (queries, k): the combined scores of these
    columns. k is 0 where the retrieval order decides.
    """

    scores: NDArray[np.float64]
    gold: Ints
    nearest: Ints
    combined: NDArray[np.float64]


class RankedBlock(NamedTuple):
    """One stage of a block of queries (queries,).

    Rows of the split, best gold's ranks, numbers of candidates, first texts, and nDCG@10.
    """

    row: Ints
    rank: Ints
    candidates: Ints
    first: Ints
    ndcg: NDArray[np.float64]


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
        Number of nearest candidates that the re-ranker orders.
    block_bytes
        Limit for the memory of the scores, in bytes.

    Returns
    -------
    DataFrame
        `query` (id), `protocol`, `stage`, `task`, `rank` (1 = gold first), `candidates`, `first` (id of the argument
        that was ranked first, see `argument_ids`) and `row` (of the split). In the stage `reranked`, candidates beyond
        the `rerank_k` nearest keep their retrieval order and stand behind them. With a collection, where queries may
        have several golds, also `ndcg@10` with all golds and grades; `rank` is that of the best gold.
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
    import pandas as pd

    id_of = argument_ids(split)
    first_id = np.array([id_of.get(text, "") for text in range(max(id_of) + 1)], dtype=object)
    keys, tables = zip(*cells, strict=True)
    row, rank, candidates, first, ndcg = (np.concatenate(column) for column in zip(*tables, strict=True))
    names = np.repeat(np.array(keys, dtype=object), [len(block.row) for block in tables], axis=0)
    return pd.DataFrame(
        {
            "query": np.array(split.ids, dtype=object)[row],
            **dict(zip(("protocol", "stage", "task"), names.T, strict=True)),
            "rank": rank,
            "candidates": candidates,
            "first": first_id[first],
            "row": row,
            **({} if split.collection is None else {NDCG: ndcg}),
        }
    )


def named_arguments(split: Split) -> dict[str, tuple[list[str], Ints]]:
    """Return table -> the id and the text (row of `Corpus.texts`) of each argument, in the order of their numbers.

    Ids are `theme/debate/pro01/point` and `theme/debate/pro01/counter`; documents of a collection have their own.
    """
    tables = {
        part: ([f"{id_}/{part}" for id_ in split.ids], texts)
        for part, texts in (("point", split.point), ("counter", split.counter))
    }
    if split.collection is not None:
        tables["document"] = (list(split.collection.ids), split.collection.text)
    return tables


def argument_ids(split: Split) -> dict[int, str]:
    """Return the id of the first argument with each text: documents of a collection, then counters, then points."""
    ids: dict[int, str] = {}
    tables = named_arguments(split)
    for table in ("document", "counter", "point"):
        for id_, text in zip(*tables.get(table, ((), np.empty(0, dtype=np.int64))), strict=True):
            ids.setdefault(int(text), id_)
    return ids


def score_pool(pool: Pool, scorers: StageScorers, k: int) -> ScoredPool:
    """Score the candidates of a pool and, with a re-ranker, score the k nearest once more."""
    gold, scores = pool.gold, np.where(pool.allowed, scorers.retrieval(pool.query_text, pool.text), -np.inf)
    scores = lower_golds(scores, gold, SCORE_TIE)
    if scorers.classify is None or not scorers.combination.decides:
        return ScoredPool(scores, gold, np.empty((len(scores), 0), dtype=np.int64), np.empty((len(scores), 0)))
    nearest = largest_columns(scores, min(k, scores.shape[1]))
    near = np.take_along_axis(scores, nearest, axis=1)
    shortlist = Shortlist.of(pool, nearest, near, GoldRanks.unknown(len(scores)), scorers.classify)
    return ScoredPool(scores, gold, nearest, scorers.combination(shortlist.classifier, shortlist.retrieval))


def ranking_order(scored: ScoredPool) -> Ints:
    """Return all columns (queries, columns), best first: the k nearest by combined score, the rest by score."""
    order = np.argsort(-scored.scores, axis=1, kind="stable")
    by_combined = np.argsort(-scored.combined, axis=1, kind="stable")
    order[:, : scored.nearest.shape[1]] = np.take_along_axis(scored.nearest, by_combined, axis=1)
    return order


def _block(columns: int, block_bytes: int) -> int:
    """Return how many queries are ranked at a time, so that their scores in one tile fit into memory."""
    return max(1, min(MOST_QUERIES, block_bytes // (SCORE_BYTES * min(columns, TILE))))


def shortlists(split: Split, protocol: str, task: Task, scorers: StageScorers, config: EvaluationConfig) -> Shortlist:
    """Return the nearest candidates of all queries of one protocol and task, for the choice of the combination."""
    assert scorers.classify is not None
    parts, k = [], config.rerank_k
    for pool in pools(split, task, protocol, np.arange(len(split))):
        for part in pool.parts(_block(len(pool.text), config.block_bytes)):
            golds, top = _first_stage(part, scorers.retrieval, k)
            parts.append(Shortlist.of(part, top.column, top.score, golds, scorers.classify).padded(k))
    return Shortlist(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _rank_pool(pool: Pool, scorers: StageScorers, k: int) -> list[RankedBlock]:
    """Rank a pool by score and, with a re-ranker, again after re-ranking."""
    classify, combination = scorers.classify, scorers.combination
    golds, top = _first_stage(pool, scorers.retrieval, 1 if classify is None or not combination.decides else k)
    candidates = pool.candidates
    retrieval = RankedBlock(pool.query, golds.best, candidates, pool.text[top.column[:, 0]], golds.ndcg())
    if classify is None:
        return [retrieval]
    if not combination.decides:
        return [retrieval, retrieval]
    reranked = Shortlist.of(pool, top.column, top.score, golds, classify).reranked(combination)
    return [retrieval, RankedBlock(pool.query, reranked.rank, candidates, reranked.first, reranked.ndcg)]


def _first_stage(pool: Pool, score: Scorer, k: int) -> tuple[GoldRanks, Top]:
    """Return the ranks of the golds of each query of a pool, and its k best columns, scored tile by tile."""
    gold = lowered(_gold_scores(pool, score), SCORE_TIE)  # (queries, golds)
    query, place, column = cells = pool.gold_cells()
    slot = best_slots(gold, cells)
    bounds = np.take_along_axis(gold, slot, axis=1)
    top = Top(np.empty((len(pool.query), 0)), np.empty((len(pool.query), 0), dtype=np.int64))
    above = np.zeros(slot.shape, dtype=np.int64)  # candidates that are no golds
    excluded_query, which = np.nonzero(pool.excluded >= 0)
    excluded = pool.excluded[excluded_query, which]
    for start in range(0, len(pool.text), TILE):
        check_stop()
        scores = score(pool.query_text, pool.text[start : start + TILE])
        own = (excluded >= start) & (excluded < start + scores.shape[1])
        scores[excluded_query[own], excluded[own] - start] = -np.inf
        here = slice(*np.searchsorted(column, (start, start + TILE)))
        golds = query[here], column[here] - start
        scores[golds] = -np.inf
        for rank in range(slot.shape[1]):
            above[:, rank] += np.count_nonzero(scores > bounds[:, rank, None], axis=1)
        scores[golds] = gold[query[here], place[here]]
        top = top.merged(scores, start, k)
    ranks = 1 + above + np.arange(slot.shape[1])  # the better golds stand above, too
    return GoldRanks(slot, ranks, np.take_along_axis(gains(pool), slot, axis=1)), top


def _gold_scores(pool: Pool, score: Scorer) -> NDArray[np.float64]:
    """Return the best score among each gold and its copies (queries, golds), -inf where a query has fewer golds."""
    query, slot, text = pool.gold_texts()
    best = np.full(pool.gold_text.shape, -np.inf)
    np.maximum.at(best, (query, slot), paired_scores(score, pool.query_text[query], text))
    return best


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
