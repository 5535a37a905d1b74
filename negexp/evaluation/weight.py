"""Choose how re-ranking combines both scores, on the validation split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from negexp.config import EvaluationConfig
from negexp.corpus.arguments import Split
from negexp.evaluation.metrics import rank_metrics
from negexp.evaluation.monitor import Monitor
from negexp.evaluation.pools import TASKS
from negexp.evaluation.ranking import StageScorers, shortlists
from negexp.evaluation.second_stage import Combination, Shortlist

WEIGHTS = tuple(step / 10 for step in range(11))  # from the re-ranker alone to the retrieval order


def choose_combination(
    scorers: StageScorers, validation: Split, monitor: Monitor, config: EvaluationConfig
) -> Combination | None:
    """Return the combination with the weight `evaluation.rerank_weight`; null: with the best weight on validation.

    The lists of the monitored protocol and task decide the weight and the scale. Without a second stage, there is none.
    """
    if scorers.classify is None:
        return None
    nearest = monitored_lists(scorers, validation, monitor, config)
    return choose_weight(nearest, monitor.metric, config.rerank_weight)


def monitored_lists(scorers: StageScorers, validation: Split, monitor: Monitor, config: EvaluationConfig) -> Shortlist:
    """Return the nearest candidates of the validation queries in the monitored protocol and task."""
    task = next(task for task in TASKS if task.name == monitor.task)
    return shortlists(validation, monitor.protocol, task, scorers, config)


def choose_weight(nearest: Shortlist, metric: str, weight: float | None) -> Combination:
    """Return the combination of these lists' scores, with the given weight or, for null, the best one."""
    scale = spread_ratio(nearest)
    return best_combination(nearest, scale, metric) if weight is None else Combination(weight, scale)


def best_combination(nearest: Shortlist, scale: float, metric: str) -> Combination:
    """Return the weight of `WEIGHTS` with the best metric, then the best MRR; of equal weights the largest.

    The largest weight stays nearest to the retrieval order. As that order is one of the choices, the metric on
    validation is never below retrieval's.
    """
    choices = [Combination(weight, scale) for weight in WEIGHTS]
    ranked = [nearest.reranked(choice) for choice in choices]
    found = [rank_metrics(one.rank, one.ndcg) for one in ranked]
    best = max(range(len(choices)), key=lambda one: (found[one][metric], found[one]["mrr"], choices[one].weight))
    return choices[best]


def spread_ratio(nearest: Shortlist) -> float:
    """Return the standard deviation of the log-odds within the lists, divided by that of the retrieval scores.

    Only differences within a list change its order. The ratio is 1 where either score is the same for all candidates.
    """
    classifier, retrieval = (_spread(scores) for scores in (nearest.classifier, nearest.retrieval))
    return classifier / retrieval if classifier > 0 and retrieval > 0 else 1.0


def _spread(scores: NDArray[np.float64]) -> float:
    real = np.isfinite(scores)
    mean = np.mean(scores, axis=1, where=real, keepdims=True, dtype=np.float64)
    return float(np.sqrt(np.mean((scores - mean) ** 2, where=real)))
