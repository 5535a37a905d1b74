"""Evaluation: candidate pools of eight tasks, ranks under two protocols, and metrics of the ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from negexp.evaluation.metrics import METRICS, summarise
from negexp.evaluation.pools import PROTOCOLS, STAGES, TASKS
from negexp.evaluation.second_stage import Classifier, Combination

if TYPE_CHECKING:
    from negexp.evaluation.ranking import StageScorers, rank_queries
    from negexp.evaluation.scores import DistanceScorer, MatrixScorer, Scorer

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "STAGES",
    "TASKS",
    "Classifier",
    "Combination",
    "DistanceScorer",
    "MatrixScorer",
    "Scorer",
    "StageScorers",
    "rank_queries",
    "summarise",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for: reports read ranks without it."""
    if name in ("StageScorers", "rank_queries"):
        from negexp.evaluation import ranking

        return getattr(ranking, name)
    if name in ("DistanceScorer", "MatrixScorer", "Scorer"):
        from negexp.evaluation import scores

        return getattr(scores, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
