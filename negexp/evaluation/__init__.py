"""Evaluation: candidate pools of eight tasks, ranks under two protocols, and metrics of the ranks."""

from negexp.evaluation.metrics import METRICS, summarise
from negexp.evaluation.pools import PROTOCOLS, TASKS
from negexp.evaluation.ranking import STAGES, StageScorers, rank_queries
from negexp.evaluation.scores import DistanceScorer, MatrixScorer, Scorer
from negexp.evaluation.second_stage import Classifier, Combination

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
