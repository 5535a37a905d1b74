"""Metrics of ranks. Each query has one gold counter, so its rank determines every metric."""

from __future__ import annotations

import numpy as np
import pandas as pd

# columns of a table of ranks: a row for each query, protocol, stage and task
RANK_COLUMNS = ["query", "protocol", "stage", "task", "rank", "candidates", "first", "group", "seen_in_training"]
METRICS = ("accuracy@1", "accuracy@5", "accuracy@10", "mrr", "ndcg@10")

# {protocol: {stage: {task: {metric: value}}}}
Metrics = dict[str, dict[str, dict[str, dict[str, float]]]]


def query_metrics(rank: np.ndarray) -> dict[str, np.ndarray]:
    """Return every metric of METRICS, in that order, for each query (queries,). The best rank of a gold is 1.

    With a single relevant candidate, reciprocal rank is 1 / rank and nDCG@10 is 1 / log2(1 + rank) down to rank 10
    (Järvelin and Kekäläinen 2002).
    """
    rank = np.asarray(rank, dtype=np.float64)
    return {
        "accuracy@1": (rank <= 1).astype(np.float64),
        "accuracy@5": (rank <= 5).astype(np.float64),
        "accuracy@10": (rank <= 10).astype(np.float64),
        "mrr": 1 / rank,
        "ndcg@10": np.where(rank <= 10, 1 / np.log2(1 + rank), 0.0),
    }


def rank_metrics(rank: np.ndarray) -> dict[str, float]:
    """Return the means of `query_metrics` over the given ranks (queries,).

    >>> rank_metrics(np.array([1, 3, 20, 20]))
    {'accuracy@1': 0.25, 'accuracy@5': 0.5, 'accuracy@10': 0.5, 'mrr': 0.35833333333333334, 'ndcg@10': 0.375}
    """
    return {metric: float(values.mean()) for metric, values in query_metrics(rank).items()}


def summarise(ranks: pd.DataFrame) -> Metrics:
    """Return the metrics of every protocol, stage and task in a table of per-query ranks."""
    summary: Metrics = {}
    for key, part in ranks.groupby(["protocol", "stage", "task"], sort=False):
        protocol, stage, task = map(str, key)
        values = rank_metrics(part["rank"].to_numpy())
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
