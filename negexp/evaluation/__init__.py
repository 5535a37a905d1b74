"""Evaluation: candidate pools of eight tasks, ranks under two protocols, and metrics of the ranks."""

from negexp.evaluation.metrics import METRICS, summarise
from negexp.evaluation.pools import PROTOCOLS, TASKS
from negexp.evaluation.ranking import STAGES, Classifier, Scorer, StageScorers, rank_queries

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "STAGES",
    "TASKS",
    "Classifier",
    "Scorer",
    "StageScorers",
    "rank_queries",
    "summarise",
]
