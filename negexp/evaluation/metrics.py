"""Metrics of ranks. The rank of a query's best gold determines every metric but nDCG@10 of several golds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from negexp.evaluation.golds import discount

if TYPE_CHECKING:
    import pandas as pd

# columns of a table of ranks: a row for each query, protocol, stage and task
RANK_COLUMNS = ["query", "protocol", "stage", "task", "rank", "candidates", "first", "group", "seen_in_training"]
NDCG = "ndcg@10"  # a further column where queries can have several golds

METRICS = ("accuracy@1", "accuracy@5", "accuracy@10", "mrr", "ndcg@10")

# {protocol: {stage: {task: {metric: value}}}}
Metrics = dict[str, dict[str, dict[str, dict[str, float]]]]


def query_metrics(rank: np.ndarray, ndcg: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return every metric of METRICS, in that order, for each query (queries,). The best rank of a gold is 1.

    Without `ndcg` (queries,), each query has one gold: then nDCG@10 is 1 / log2(1 + rank) down to rank 10 (Järvelin and
    Kekäläinen 2002).
    """
    rank = np.asarray(rank, dtype=np.float64)
    return {
        "accuracy@1": (rank <= 1).astype(np.float64),
        "accuracy@5": (rank <= 5).astype(np.float64),
        "accuracy@10": (rank <= 10).astype(np.float64),
        "mrr": 1 / rank,
        "ndcg@10": discount(rank) if ndcg is None else np.asarray(ndcg, dtype=np.float64),
    }


def rank_metrics(rank: np.ndarray, ndcg: np.ndarray | None = None) -> dict[str, float]:
    """Return the means of `query_metrics` over the given queries (queries,).

    >>> rank_metrics(np.array([1, 3, 20, 20]))
    {'accuracy@1': 0.25, 'accuracy@5': 0.5, 'accuracy@10': 0.5, 'mrr': 0.35833333333333334, 'ndcg@10': 0.375}
    """
    return {metric: float(values.mean()) for metric, values in query_metrics(rank, ndcg).items()}


def table_metrics(ranks: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return `query_metrics` of a table of ranks; its column `ndcg@10` is there for corpora with several golds."""
    ndcg = ranks["ndcg@10"].to_numpy() if "ndcg@10" in ranks else None
    return query_metrics(ranks["rank"].to_numpy(), ndcg)


def summarise(ranks: pd.DataFrame) -> Metrics:
    """Return the metrics of every protocol, stage and task in a table of per-query ranks."""
    summary: Metrics = {}
    for key, part in ranks.groupby(["protocol", "stage", "task"], sort=False):
        protocol, stage, task = map(str, key)
        values = {metric: float(of_query.mean()) for metric, of_query in table_metrics(part).items()}
        values |= {"candidates": float(part["candidates"].mean()), "queries": len(part)}
        summary.setdefault(protocol, {}).setdefault(stage, {})[task] = values
    return summary


def metric_columns(metrics: Metrics, prefix: str) -> dict[str, float]:
    """Return the values by column name `prefix/protocol/stage/task/metric`, without the sizes of the pools."""
    return {
        f"{prefix}/{protocol}/{stage}/{task}/{metric}": values[metric]
        for protocol, stages in metrics.items()
        for stage, tasks in stages.items()
        for task, values in tasks.items()
        for metric in METRICS
    }
