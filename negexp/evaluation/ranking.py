"""Ranks of the gold counter: first by distance, then after the re-ranker has ordered the k nearest candidates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.config import EvaluationConfig
from negexp.corpus.arguments import Ints, Split
from negexp.evaluation.block import RankedCell
from negexp.evaluation.metrics import NDCG
from negexp.evaluation.names import argument_ids
from negexp.evaluation.one_pass import OnePass
from negexp.evaluation.pools import PROTOCOLS, STAGES, Cell, Task, possible_tasks, protocol_queries
from negexp.evaluation.scores import Scorer
from negexp.evaluation.second_stage import Classifier, Combination, Shortlist, classify_nearest
from negexp.progress import progress_bar
from negexp.signals import check_stop

if TYPE_CHECKING:
    import pandas as pd


class StageScorers(NamedTuple):
    """The scorer of the first stage, the re-ranker of the second (None: there is none), and how both are combined."""

    retrieval: Scorer
    classify: Classifier | None
    combination: Combination = Combination()

    @property
    def reranker(self) -> Classifier | None:
        """Return the re-ranker where it has a say in the order."""
        return self.classify if self.combination.decides else None


class RankedBlock(NamedTuple):
    """One stage of a block of queries (queries,).

    Rows of the split, best gold's ranks, numbers of candidates, first texts, and nDCG@10.
    """

    row: Ints
    rank: Ints
    candidates: Ints
    first: Ints
    ndcg: NDArray[np.float64]


class CellRanks(NamedTuple):
    """The queries of a block in one task and protocol.

    row (queries,): rows of the split. text (queries, k): texts of the nearest candidates. lists: these candidates with
    the scores of both stages; None without a second stage.
    """

    row: Ints
    cell: RankedCell
    text: Ints
    lists: Shortlist | None


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
    cells = [Cell(protocol, task) for protocol in PROTOCOLS for task in possible_tasks(split)[0]]
    one_pass = OnePass(split, scorers.retrieval, cells, 1 if scorers.reranker is None else rerank_k)
    blocks = ranked_blocks(one_pass, scorers.reranker, block_bytes, queries, progress)
    found = [[_stages(one, scorers) for one in block] for block in blocks]
    tables: list[tuple[tuple[str, str, str], RankedBlock]] = []
    for cell, parts in zip(cells, zip(*found, strict=True), strict=True):
        for stage, ranks in zip(STAGES, zip(*parts, strict=True), strict=False):
            whole = RankedBlock(*(np.concatenate(column) for column in zip(*ranks, strict=True)))
            tables.append(((cell.protocol, stage, cell.task.name), whole))
    return _table(split, tables)


def _stages(ranks: CellRanks, scorers: StageScorers) -> list[RankedBlock]:
    """Return the ranks of both stages; without a re-ranker, those of the first."""
    cell = ranks.cell
    retrieval = RankedBlock(ranks.row, cell.golds.best, cell.candidates, ranks.text[:, 0], cell.golds.ndcg())
    if ranks.lists is None:
        return [retrieval] if scorers.classify is None else [retrieval, retrieval]
    reranked = ranks.lists.reranked(scorers.combination)
    return [retrieval, RankedBlock(ranks.row, reranked.rank, cell.candidates, reranked.first, reranked.ndcg)]


def ranked_blocks(
    one_pass: OnePass,
    classify: Classifier | None,
    block_bytes: int,
    queries: Ints | None = None,
    progress: str = "never",
) -> Iterator[list[CellRanks]]:
    """Yield the ranks of a block of queries in every task and protocol, rows ascending; at least one block.

    `queries`: rows of the split that may be queries, None for all.
    """
    split = one_pass.candidates.split
    queries = np.arange(len(split)) if queries is None else queries
    of_protocol = {
        cell.protocol: np.intersect1d(queries, protocol_queries(split, cell.protocol)) for cell in one_pass.cells
    }
    rows = np.unique(np.concatenate(list(of_protocol.values())))
    size = one_pass.queries_at_a_time(block_bytes)
    with progress_bar(len(rows), "evaluating", "query", progress) as bar:
        for start in range(0, max(1, len(rows)), size):
            check_stop()
            block = rows[start : start + size]
            is_query = {protocol: np.isin(block, own) for protocol, own in of_protocol.items()}
            yield _rank_block(one_pass, block, [is_query[cell.protocol] for cell in one_pass.cells], classify)
            bar.update(len(block))


def _rank_block(
    one_pass: OnePass, rows: Ints, is_query: list[NDArray[np.bool_]], classify: Classifier | None
) -> list[CellRanks]:
    """Rank a block; each task and protocol has its own queries."""
    cells, candidates = one_pass.rank(rows), one_pass.candidates
    texts = [candidates.text[cell.nearest.column] for cell in cells]
    if classify is None:
        scores: list[NDArray[np.float64]] | None = None
    else:
        there = [cell.nearest.there & own[:, None] for cell, own in zip(cells, is_query, strict=True)]
        scores = classify_nearest(classify, candidates.split.point[rows], texts, there)
    found = []
    for number, (cell, own) in enumerate(zip(cells, is_query, strict=True)):
        kept, text = cell.take(own), texts[number][own]
        lists = None if scores is None else Shortlist.of(kept, text, scores[number][own])
        found.append(CellRanks(rows[own], kept, text, lists))
    return found


def shortlists(split: Split, protocol: str, task: Task, scorers: StageScorers, config: EvaluationConfig) -> Shortlist:
    """Return the nearest candidates of all queries of one protocol and task, for the choice of the combination."""
    assert scorers.classify is not None
    one_pass = OnePass(split, scorers.retrieval, [Cell(protocol, task)], config.rerank_k)
    blocks = ranked_blocks(one_pass, scorers.classify, config.block_bytes)
    parts = [ranks.lists for (ranks,) in blocks if ranks.lists is not None]
    return Shortlist(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _table(split: Split, cells: list[tuple[tuple[str, str, str], RankedBlock]]) -> pd.DataFrame:
    """Return the ranks of all (protocol, stage, task) as one table, in the given order."""
    import pandas as pd

    id_of = argument_ids(split)
    first_id = np.array([id_of.get(text, "") for text in range(max(id_of) + 1)], dtype=object)
    keys, tables = zip(*cells, strict=True)
    row, rank, candidates, first, ndcg = (np.concatenate(column) for column in zip(*tables, strict=True))
    names = np.repeat(np.array(keys, dtype=object), [len(block.row) for block in tables], axis=0)
    table = pd.DataFrame(
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
    return table.astype(dict.fromkeys(("query", "protocol", "stage", "task", "first"), "str"))  # also without rows
